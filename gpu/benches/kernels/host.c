// The kernels of the benchmark in plain C, over all of the host's processors. Prints each one's best time in seconds of processors.
//   host [name ...]
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sizes.h"

static float *a, *b, *c, *d, *e;
static volatile float sums[64];

static void vector_add(int from, int to, int part) {
  float *restrict to_c = c;
  for (int i = from; i < to; i++)
    to_c[i] = a[i] + b[i];
}

static void saxpy(int from, int to, int part) {
  float *restrict y = c;
  for (int i = from; i < to; i++)
    y[i] = 2.5f * a[i] + y[i];
}

static void sgemm(int from, int to, int part) {
  for (int i = from; i < to; i++) {
    float *restrict row = c + i * SGEMM;
    for (int j = 0; j < SGEMM; j++)
      row[j] = 0;
    for (int k = 0; k < SGEMM; k++)
      for (int j = 0; j < SGEMM; j++)
        row[j] += a[i * SGEMM + k] * b[k * SGEMM + j];
  }
}

static void reduction(int from, int to, int part) {
  float sum = 0;
  for (int i = from; i < to; i++)
    sum += a[i];
  sums[part] = sum;
}

static float normal(float x) {
  float k = 1 / (1 + 0.2316419f * fabsf(x));
  float w = 0.39894228f * expf(-0.5f * x * x) *
            (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
  return x > 0 ? 1 - w : w;
}

static void black_scholes(int from, int to, int part) {
  const float rate = 0.02f, volatility = 0.3f;
  float *restrict call = d, *restrict put = e;
  for (int i = from; i < to; i++) {
    float s = a[i], x = b[i], t = c[i];
    float root = sqrtf(t);
    float d1 = (logf(s / x) + (rate + 0.5f * volatility * volatility) * t) / (volatility * root);
    float d2 = d1 - volatility * root;
    float c1 = normal(d1), c2 = normal(d2);
    float discounted = x * expf(-rate * t);
    call[i] = s * c1 - discounted * c2;
    put[i] = discounted * (1 - c2) - s * (1 - c1);
  }
}

static void nbody(int from, int to, int part) {
  for (int i = from; i < to; i++) {
    float x = a[4 * i], y = a[4 * i + 1], z = a[4 * i + 2];
    float ax = 0, ay = 0, az = 0;
    for (int j = 0; j < NBODY; j++) {
      float dx = a[4 * j] - x, dy = a[4 * j + 1] - y, dz = a[4 * j + 2] - z;
      float square = dx * dx + dy * dy + dz * dz + 0.01f;
      float inverse = 1 / sqrtf(square);
      float force = a[4 * j + 3] * inverse * inverse * inverse;
      ax += dx * force;
      ay += dy * force;
      az += dz * force;
    }
    c[3 * i] = ax;
    c[3 * i + 1] = ay;
    c[3 * i + 2] = az;
  }
}

static const struct kernel {
  const char *name;
  void (*run)(int, int, int);
  int count;
} kernels[] = {{"vector_add", vector_add, VECTOR},          {"saxpy", saxpy, VECTOR},
               {"sgemm", sgemm, SGEMM},                     {"reduction", reduction, VECTOR},
               {"black_scholes", black_scholes, OPTIONS}, {"nbody", nbody, NBODY}};

static const struct kernel *kernel;
static int parts;

static void *work(void *argument) {
  long part = (long)argument;
  kernel->run(kernel->count / parts * part, kernel->count / parts * (part + 1), part);
  return NULL;
}

int main(int argc, char **argv) {
  parts = sysconf(_SC_NPROCESSORS_ONLN);
  for (; VECTOR % parts || parts > 64; parts--)
    ;
  float **arrays[] = {&a, &b, &c, &d, &e};
  for (int k = 0; k < 5; k++) {
    *arrays[k] = malloc(VECTOR * sizeof(float));
    for (int i = 0; i < VECTOR; i++)
      (*arrays[k])[i] = VALUE(i, k);
  }
  for (kernel = kernels; kernel < kernels + sizeof kernels / sizeof *kernels; kernel++) {
    int chosen = argc == 1;
    for (int name = 1; name < argc; name++)
      chosen |= !strcmp(argv[name], kernel->name);
    if (!chosen)
      continue;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
      struct timespec start, end;
      pthread_t threads[64];
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
      for (long part = 0; part < parts; part++)
        pthread_create(&threads[part], NULL, work, (void *)part);
      for (int part = 0; part < parts; part++)
        pthread_join(threads[part], NULL);
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
      double seconds = end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) * 1e-9;
      if (seconds < best)
        best = seconds;
    }
    printf("%s %.9f\n", kernel->name, best);
  }
}
