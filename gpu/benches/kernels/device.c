// The kernels of the benchmark for the device. Compiled to device.ptx beside this file by
//   clang-19 --target=nvptx64-nvidia-cuda -march=sm_75 -Xclang -target-feature -Xclang +ptx78 -O3 -ffp-contract=fast -S device.c
// host.c and kernels.cl have the same kernels for the host's compiler and for OpenCL.

#define KERNEL __attribute__((nvptx_kernel)) void
#define GLOBAL __attribute__((address_space(1)))
#define SHARED __attribute__((address_space(3)))
#define TID __nvvm_read_ptx_sreg_tid_x()
#define NTID __nvvm_read_ptx_sreg_ntid_x()
#define CTAID __nvvm_read_ptx_sreg_ctaid_x()
#define THREAD (CTAID * NTID + TID)
#define barrier() __nvvm_bar_sync(0)

typedef GLOBAL float *Floats;
typedef const GLOBAL float *ConstFloats;

KERNEL vector_add(Floats c, ConstFloats a, ConstFloats b, int n) {
  int i = THREAD;
  if (i < n)
    c[i] = a[i] + b[i];
}

KERNEL saxpy(Floats y, ConstFloats x, float a, int n) {
  int i = THREAD;
  if (i < n)
    y[i] = a * x[i] + y[i];
}

#define TILE 16

static SHARED float tile_a[TILE][TILE], tile_b[TILE][TILE];

KERNEL sgemm(Floats c, ConstFloats a, ConstFloats b, int n) {
  int tx = TID, ty = __nvvm_read_ptx_sreg_tid_y();
  int column = CTAID * TILE + tx, row = __nvvm_read_ptx_sreg_ctaid_y() * TILE + ty;
  float sum = 0;
  for (int t = 0; t < n; t += TILE) {
    tile_a[ty][tx] = a[row * n + t + tx];
    tile_b[ty][tx] = b[(t + ty) * n + column];
    barrier();
    for (int k = 0; k < TILE; k++)
      sum += tile_a[ty][k] * tile_b[k][tx];
    barrier();
  }
  c[row * n + column] = sum;
}

static SHARED float partial[256];

KERNEL reduction(Floats sums, ConstFloats x, int n) {
  int t = TID, threads = NTID;
  float sum = 0;
  for (int i = CTAID * threads + t; i < n; i += threads * __nvvm_read_ptx_sreg_nctaid_x())
    sum += x[i];
  partial[t] = sum;
  barrier();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (t < half)
      partial[t] += partial[t + half];
    barrier();
  }
  if (t == 0)
    sums[CTAID] = partial[0];
}

#define LOG2E 1.44269504f
#define LN2 0.69314718f

static float exp_(float x) { return __nvvm_ex2_approx_f(x * LOG2E); }
static float log_(float x) { return __nvvm_lg2_approx_f(x) * LN2; }

// The cumulative normal distribution by Abramowitz and Stegun 26.2.17.
static float normal(float d) {
  float k = 1 / (1 + 0.2316419f * __builtin_fabsf(d));
  float w = 0.39894228f * exp_(-0.5f * d * d) *
            (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
  return d > 0 ? 1 - w : w;
}

KERNEL black_scholes(Floats call, Floats put, ConstFloats price, ConstFloats strike, ConstFloats years, int n) {
  int i = THREAD;
  if (i >= n)
    return;
  const float rate = 0.02f, volatility = 0.3f;
  float s = price[i], x = strike[i], t = years[i];
  float root = __nvvm_sqrt_rn_f(t);
  float d1 = (log_(s / x) + (rate + 0.5f * volatility * volatility) * t) / (volatility * root);
  float d2 = d1 - volatility * root;
  float c1 = normal(d1), c2 = normal(d2);
  float discounted = x * exp_(-rate * t);
  call[i] = s * c1 - discounted * c2;
  put[i] = discounted * (1 - c2) - s * (1 - c1);
}

// Accelerations of bodies (x, y, z, mass) by all others.
KERNEL nbody(Floats acceleration, ConstFloats bodies, int n) {
  int i = THREAD;
  float x = bodies[4 * i], y = bodies[4 * i + 1], z = bodies[4 * i + 2];
  float ax = 0, ay = 0, az = 0;
  for (int j = 0; j < n; j++) {
    float dx = bodies[4 * j] - x, dy = bodies[4 * j + 1] - y, dz = bodies[4 * j + 2] - z;
    float square = dx * dx + dy * dy + dz * dz + 0.01f;
    float inverse = 1 / __nvvm_sqrt_rn_f(square);
    float force = bodies[4 * j + 3] * inverse * inverse * inverse;
    ax += dx * force;
    ay += dy * force;
    az += dz * force;
  }
  acceleration[3 * i] = ax;
  acceleration[3 * i + 1] = ay;
  acceleration[3 * i + 2] = az;
}
