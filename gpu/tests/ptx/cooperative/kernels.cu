// Kernels whose threads work together, and what C++ for devices has beside. `python3 compile.py DIRECTORY`, with NVRTC 12.9
// and no GPU, writes the files beside this one.

typedef unsigned u32;
typedef unsigned long long u64;

// The sum of all, by halving in shared memory.
extern "C" __global__ void block_sum(const u32 *in, u32 n, u32 *sum)
{
	__shared__ u32 part[128];
	u32 mine = 0;
	for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		mine += in[i];
	part[threadIdx.x] = mine;
	for (u32 half = blockDim.x / 2; half; half /= 2) {
		__syncthreads();
		if (threadIdx.x < half)
			part[threadIdx.x] += part[threadIdx.x + half];
	}
	if (threadIdx.x == 0)
		atomicAdd(sum, part[0]);
}

// A matrix of n columns and n rows becomes its mirror image, tile by tile.
extern "C" __global__ void transpose(const float *in, float *out, u32 n)
{
	__shared__ float tile[16][17];
	u32 x = blockIdx.x * 16 + threadIdx.x, y = blockIdx.y * 16 + threadIdx.y;
	if (x < n && y < n)
		tile[threadIdx.y][threadIdx.x] = in[y * n + x];
	__syncthreads();
	x = blockIdx.y * 16 + threadIdx.x;
	y = blockIdx.x * 16 + threadIdx.y;
	if (x < n && y < n)
		out[y * n + x] = tile[threadIdx.x][threadIdx.y];
}

// Eight words a thread of what a warp tells itself about x.
extern "C" __global__ void warp(const u32 *in, u32 *out)
{
	const u32 all = 0xffffffff;
	u32 i = blockIdx.x * blockDim.x + threadIdx.x;
	u32 x = in[i];
	u32 sum = x;
	for (u32 step = 16; step; step /= 2)
		sum += __shfl_xor_sync(all, sum, step);
	u32 before = x;
	for (u32 step = 1; step < 32; step *= 2) {
		u32 other = __shfl_up_sync(all, before, step);
		if (threadIdx.x % 32 >= step)
			before += other;
	}
	out[8 * i] = sum;
	out[8 * i + 1] = before;
	out[8 * i + 2] = __ballot_sync(all, x & 1);
	out[8 * i + 3] = __any_sync(all, x > 90) | __all_sync(all, x < 97) << 1;
	out[8 * i + 4] = __shfl_down_sync(all, x, 3, 8);
	out[8 * i + 5] = __shfl_sync(all, x, threadIdx.x * 7);
	// The others are elsewhere meanwhile.
	u32 odds = __ballot_sync(all, x & 1), first = 0;
	if (x & 1)
		first = __shfl_sync(odds, x, __ffs(odds) - 1);
	out[8 * i + 6] = first;
	out[8 * i + 7] = __clz(x) << 16 | __ffs(x) << 8 | __popc(x);
}

// Counts of 32 colours, least, greatest, all bits, and a sum by compare and swap.
extern "C" __global__ void statistics(const u32 *in, u32 n, u32 *counts, u32 *least, int *greatest, u64 *bits, double *sum)
{
	__shared__ u32 own[32];
	if (threadIdx.x < 32)
		own[threadIdx.x] = 0;
	__syncthreads();
	u32 i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n) {
		u32 x = in[i];
		atomicAdd(&own[x % 32], 1);
		atomicMin(least, x);
		atomicMax(greatest, (int)x - 50);
		atomicOr(bits, 1ull << x % 64);
		u64 *word = (u64 *)sum;
		u64 seen = *word, expected;
		do {
			expected = seen;
			double next = __longlong_as_double(expected) + x;
			seen = atomicCAS(word, expected, __double_as_longlong(next));
		} while (seen != expected);
	}
	__syncthreads();
	if (threadIdx.x < 32)
		atomicAdd(&counts[threadIdx.x], own[threadIdx.x]);
}

static __device__ u32 pack(float low, float high)
{
	u32 both;
	asm("{ .reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
	    : "=r"(both) : "f"(low), "f"(high));
	return both;
}

// a times b plus a half, of pairs of halves.
extern "C" __global__ void halves(const float *a, const float *b, float *out, u32 n)
{
	u32 i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	u32 x = pack(a[2 * i], a[2 * i + 1]), y = pack(b[2 * i], b[2 * i + 1]), z = pack(0.5f, 0.5f);
	asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(z) : "r"(x), "r"(y));
	float low, high;
	asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
	    : "=f"(low), "=f"(high) : "r"(z));
	out[2 * i] = low;
	out[2 * i + 1] = high;
}

// What the device has instructions for, of a double and of a float.
extern "C" __global__ void arithmetic(const double *in, double *out, float *of_floats, u32 n)
{
	u32 i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	double x = in[i];
	out[4 * i] = sqrt(x);
	out[4 * i + 1] = 7 / x;
	out[4 * i + 2] = fma(x, x, -3.0);
	out[4 * i + 3] = (double)(long long)(x * -1e6) + (double)(unsigned long long)(x * 1e12);
	float y = (float)x;
	of_floats[6 * i] = sqrtf(y);
	of_floats[6 * i + 1] = 7 / y;
	of_floats[6 * i + 2] = rsqrtf(y);
	of_floats[6 * i + 3] = __expf(y / 8);
	of_floats[6 * i + 4] = __logf(y);
	of_floats[6 * i + 5] = __sinf(y / 16);
}

static __device__ __noinline__ u32 ackermann(u32 m, u32 n)
{
	if (m == 0)
		return n + 1;
	return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

struct Pair {
	u32 first;
	u64 second;
};

static __device__ __noinline__ Pair swap(Pair pair)
{
	return Pair{(u32)pair.second, pair.first};
}

__constant__ u32 primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
__device__ u32 launches;

// Calls, recursion, values in memory of the thread's own, constants and a variable of the module.
extern "C" __global__ void calls(u32 *out)
{
	u32 i = blockIdx.x * blockDim.x + threadIdx.x;
	u32 own[16];
	for (u32 k = 0; k < 16; k++)
		own[k] = k * i;
	for (u32 k = 0; k < 16; k++)
		own[(k * 5 + i) % 16] ^= primes[(k + i) % 8];
	Pair pair = swap(Pair{own[i % 16], own[(i + 1) % 16]});
	out[4 * i] = ackermann(2, i % 5);
	out[4 * i + 1] = pair.first;
	out[4 * i + 2] = (u32)pair.second;
	switch (i % 7) {
	case 0: own[3] += 1; break;
	case 1: own[3] *= 3; break;
	case 2: own[3] -= 7; break;
	case 3: own[3] ^= 0x55; break;
	case 4: own[3] <<= 2; break;
	default: own[3] = ~own[3];
	}
	out[4 * i + 3] = own[3];
	if (i == 0)
		launches++;
	if (i == 0)
		out[4 * gridDim.x * blockDim.x] = launches;
}
