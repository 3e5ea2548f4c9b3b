// Kernels in plain C. Each thread computes one word from two. Compiled for the device by
//   clang-19 --target=nvptx64-nvidia-cuda -march=sm_75 -Xclang -target-feature -Xclang +ptx78 -O2 -S kernels.c
// (also -O0 and sm_90) they are kernels.sm_*.ptx beside this file, and kernels.nvrtc.sm_*.ptx by NVRTC 12.9 with
//   --gpu-architecture=compute_75 --device-as-default-execution-space --fmad=false
// (also compute_52 and compute_90, and compute_80 with --device-debug --dopt=on).
// Compiled for the host by
//   clang-19 -O1 -ffp-contract=off kernels.c
// they print kernels.expected: one line a kernel, its name and its words.

typedef unsigned u32;
typedef unsigned long long u64;

#if defined __CUDACC_RTC__
#define KERNEL extern "C" __global__ void
#define THREAD (blockIdx.x * blockDim.x + threadIdx.x)
#define __builtin_popcount __popc
#define __builtin_clz __clz
#define __builtin_memcpy memcpy
#elif defined __NVPTX__
#define KERNEL __attribute__((nvptx_kernel)) void
#define THREAD (__nvvm_read_ptx_sreg_ctaid_x() * __nvvm_read_ptx_sreg_ntid_x() + __nvvm_read_ptx_sreg_tid_x())
#else
#define KERNEL static void
static u32 thread;
#define THREAD thread
#endif

static u32 mix(u32 x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

KERNEL integers(u32 *out, const u32 *in) {
  u32 i = THREAD, a = in[2 * i], b = in[2 * i + 1];
  int s = (int)a, t = (int)(b | 1);
  u64 wide = (u64)a * b + ((u64)mix(a) << 20);
  u32 r = mix(a + b) ^ (u32)(wide >> 13);
  r += (u32)(s / t) + (u32)(s % t) + a / (b | 1) + a % (b | 1);
  r ^= (a << (b & 31)) | (b >> (a & 31));
  r += (u32)(s >> (b & 31));
  r ^= (u32)__builtin_popcount(a) + (u32)__builtin_clz(b | 1) * 7u;
  r += (u32)((short)a * (short)b) + (u32)(signed char)b;
  r ^= (u32)((wide / (b | 1u)) >> 3) + (u32)(wide % (a | 1u));
  r = s < t ? r * 3u : r ^ 0x55u;
  out[i] = r;
}

// The length of a number's path to 1 by halving and 3x + 1: a loop whose length differs in every lane.
KERNEL collatz(u32 *out, const u32 *in) {
  u32 i = THREAD, steps = 0;
  u64 x = in[2 * i] % 10000u + 1;
  while (x != 1 && steps < 500) {
    x = x & 1 ? 3 * x + 1 : x / 2;
    steps++;
  }
  out[i] = steps;
}

// Insertion sort of eight numbers in local memory, then a switch.
KERNEL sort(u32 *out, const u32 *in) {
  u32 i = THREAD, values[8];
  for (u32 k = 0; k < 8; k++)
    values[k] = mix(in[2 * i] + k * in[2 * i + 1]);
  for (u32 k = 1; k < 8; k++) {
    u32 value = values[k], j = k;
    for (; j > 0 && values[j - 1] > value; j--)
      values[j] = values[j - 1];
    values[j] = value;
  }
  u32 r;
  switch (in[2 * i] % 6u) {
  case 0: r = values[0]; break;
  case 1: r = values[1] + values[7]; break;
  case 2: r = values[2] ^ 0xffu; break;
  case 3: r = values[3] * 5u; break;
  case 4: r = values[4] >> 3; break;
  default: r = values[in[2 * i + 1] & 7]; break;
  }
  out[i] = r;
}

// Only operations that round one way everywhere: no contraction, no library.
#pragma clang fp contract(off)
KERNEL floats(u32 *out, const u32 *in) {
  u32 i = THREAD;
  float a = (float)(int)in[2 * i] * 0.0009765625f, b = (float)(in[2 * i + 1] >> 8) + 0.5f;
  float c = a / b + (a - b) * 0.1f;
  double d = (double)a * (double)b - (double)c / 3.0;
  float e = (float)d;
  if (c < e)
    c = c * c - e;
  int n = (int)(c * 0.00001f);
  u32 bits;
  __builtin_memcpy(&bits, &c, 4);
  u64 wide;
  __builtin_memcpy(&wide, &d, 8);
  out[i] = bits ^ (u32)wide ^ (u32)(wide >> 32) ^ (u32)n;
}

static __attribute__((noinline)) u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

KERNEL calls(u32 *out, const u32 *in) {
  u32 i = THREAD;
  out[i] = fibonacci(in[2 * i] % 9u) * 1000u + mix(in[2 * i + 1]) % 1000u;
}

#if !defined __NVPTX__ && !defined __CUDACC_RTC__
#include <stdio.h>

enum { THREADS = 256 };

int main(void) {
  static u32 in[2 * THREADS], out[THREADS];
  for (u32 i = 0; i < 2 * THREADS; i++)
    in[i] = mix(i + 1);
  const struct {
    const char *name;
    void (*kernel)(u32 *, const u32 *);
  } kernels[] = {{"integers", integers}, {"collatz", collatz}, {"sort", sort}, {"floats", floats}, {"calls", calls}};
  for (u32 k = 0; k < sizeof kernels / sizeof *kernels; k++) {
    for (thread = 0; thread < THREADS; thread++)
      kernels[k].kernel(out, in);
    printf("%s", kernels[k].name);
    for (u32 i = 0; i < THREADS; i++)
      printf(" %08x", out[i]);
    printf("\n");
  }
}
#endif
