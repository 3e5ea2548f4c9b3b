// The kernels of the benchmark for OpenCL.

kernel void vector_add(global float *c, global const float *a, global const float *b, int n) {
  int i = get_global_id(0);
  if (i < n)
    c[i] = a[i] + b[i];
}

kernel void saxpy(global float *y, global const float *x, float a, int n) {
  int i = get_global_id(0);
  if (i < n)
    y[i] = a * x[i] + y[i];
}

#define TILE 16

kernel void sgemm(global float *c, global const float *a, global const float *b, int n) {
  local float tile_a[TILE][TILE], tile_b[TILE][TILE];
  int tx = get_local_id(0), ty = get_local_id(1);
  int column = get_group_id(0) * TILE + tx, row = get_group_id(1) * TILE + ty;
  float sum = 0;
  for (int t = 0; t < n; t += TILE) {
    tile_a[ty][tx] = a[row * n + t + tx];
    tile_b[ty][tx] = b[(t + ty) * n + column];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < TILE; k++)
      sum += tile_a[ty][k] * tile_b[k][tx];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  c[row * n + column] = sum;
}

kernel void reduction(global float *sums, global const float *x, int n) {
  local float partial[256];
  int t = get_local_id(0), threads = get_local_size(0);
  float sum = 0;
  for (int i = get_global_id(0); i < n; i += get_global_size(0))
    sum += x[i];
  partial[t] = sum;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int half_way = threads / 2; half_way > 0; half_way /= 2) {
    if (t < half_way)
      partial[t] += partial[t + half_way];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  if (t == 0)
    sums[get_group_id(0)] = partial[0];
}

float normal(float d) {
  float k = 1 / (1 + 0.2316419f * fabs(d));
  float w = 0.39894228f * exp(-0.5f * d * d) *
            (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
  return d > 0 ? 1 - w : w;
}

kernel void black_scholes(global float *call, global float *put, global const float *price, global const float *strike,
                          global const float *years, int n) {
  int i = get_global_id(0);
  if (i >= n)
    return;
  const float rate = 0.02f, volatility = 0.3f;
  float s = price[i], x = strike[i], t = years[i];
  float root = sqrt(t);
  float d1 = (log(s / x) + (rate + 0.5f * volatility * volatility) * t) / (volatility * root);
  float d2 = d1 - volatility * root;
  float c1 = normal(d1), c2 = normal(d2);
  float discounted = x * exp(-rate * t);
  call[i] = s * c1 - discounted * c2;
  put[i] = discounted * (1 - c2) - s * (1 - c1);
}

kernel void nbody(global float *acceleration, global const float *bodies, int n) {
  int i = get_global_id(0);
  float x = bodies[4 * i], y = bodies[4 * i + 1], z = bodies[4 * i + 2];
  float ax = 0, ay = 0, az = 0;
  for (int j = 0; j < n; j++) {
    float dx = bodies[4 * j] - x, dy = bodies[4 * j + 1] - y, dz = bodies[4 * j + 2] - z;
    float square = dx * dx + dy * dy + dz * dz + 0.01f;
    float inverse = 1 / sqrt(square);
    float force = bodies[4 * j + 3] * inverse * inverse * inverse;
    ax += dx * force;
    ay += dy * force;
    az += dz * force;
  }
  acceleration[3 * i] = ax;
  acceleration[3 * i + 1] = ay;
  acceleration[3 * i + 2] = az;
}
