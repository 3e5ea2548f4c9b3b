/* Whole kernels through the driver interface, each against the same computation here.
 *
 * usage: kernels DIRECTORY, where the PTX texts are. Exits with 0 if every result holds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

static void vector_add(void)
{
	enum { N = 1000 };
	float a[N], b[N], c[N];
	CUmodule module;
	CUfunction function = kernel(&module, "vector_add.ptx", "vector_add");
	unsigned long long n = N;
	CUdeviceptr da, db, dc;

	for (int i = 0; i < N; i++) {
		a[i] = i * 0.37f;
		b[i] = 1.0f / (i + 1);
	}
	da = upload(a, sizeof(a));
	db = upload(b, sizeof(b));
	CHECK(cuMemAlloc(&dc, sizeof(c)));
	void *params[] = { &da, &db, &dc, &n };
	CHECK(cuLaunchKernel(function, 4, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
	CHECK(cuMemcpyDtoH(c, dc, sizeof(c)));
	for (int i = 0; i < N; i++)
		EXPECT(c[i] == a[i] + b[i]);

	/* The other way to pass parameters. */
	CHECK(cuMemsetD32(dc, 0, N));
	unsigned long long buffer[] = { da, db, dc, n };
	size_t size = sizeof(buffer);
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
			  CU_LAUNCH_PARAM_END };
	CHECK(cuLaunchKernel(function, 4, 1, 1, 256, 1, 1, 0, NULL, NULL, extra));
	CHECK(cuMemcpyDtoH(c, dc, sizeof(c)));
	for (int i = 0; i < N; i++)
		EXPECT(c[i] == a[i] + b[i]);
	CHECK(cuMemFree(da));
	CHECK(cuMemFree(db));
	CHECK(cuMemFree(dc));
	EXPECT(cuMemFree(dc) == CUDA_ERROR_INVALID_VALUE);
	CHECK(cuModuleUnload(module));
	EXPECT(cuModuleUnload(module) == CUDA_ERROR_INVALID_HANDLE);
}

static void matmul(void)
{
	enum { N = 64 };
	static float a[N * N], b[N * N], c[N * N];
	CUmodule module;
	CUfunction function = kernel(&module, "matmul.ptx", "matmul");
	unsigned long long n = N;
	CUdeviceptr da, db, dc;
	int blocks;

	for (int i = 0; i < N * N; i++) {
		a[i] = (i * 7 % 11) * 0.25f;
		b[i] = (i * 5 % 13) * 0.5f;
	}
	da = upload(a, sizeof(a));
	db = upload(b, sizeof(b));
	CHECK(cuMemAlloc(&dc, sizeof(c)));
	void *params[] = { &da, &db, &dc, &n };
	CHECK(cuLaunchKernel(function, N / 16, N / 16, 1, 16, 16, 1, 0, NULL, params, NULL));
	CHECK(cuMemcpyDtoH(c, dc, sizeof(c)));
	for (int row = 0; row < N; row++) {
		for (int column = 0; column < N; column++) {
			float sum = 0;

			for (int k = 0; k < N; k++)
				sum += a[row * N + k] * b[k * N + column];
			EXPECT(c[row * N + column] == sum);
		}
	}
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 256, 0));
	EXPECT(blocks == 4);
	CHECK(cuModuleUnload(module));
}

static void reduction(void)
{
	enum { N = 5000 };
	static unsigned data[N];
	unsigned sum = 0, expected = 0;
	unsigned long long n = N;
	CUmodule module;
	CUfunction function = kernel(&module, "reduce.ptx", "reduce");
	CUdeviceptr d_data, d_sum;

	for (unsigned i = 0; i < N; i++) {
		data[i] = i * 2654435761u;
		expected += data[i];
	}
	d_data = upload(data, sizeof(data));
	d_sum = upload(&sum, sizeof(sum));
	void *params[] = { &d_data, &d_sum, &n };
	CHECK(cuLaunchKernel(function, 5, 1, 1, 128, 1, 1, 0, NULL, params, NULL));
	CHECK(cuMemcpyDtoH(&sum, d_sum, sizeof(sum)));
	EXPECT(sum == expected);
	CHECK(cuModuleUnload(module));
}

static void histogram(void)
{
	enum { N = 4096, BINS = 16 };
	static unsigned data[N];
	unsigned bins[BINS], expected[BINS] = { 0 };
	unsigned long long n = N;
	CUmodule module;
	CUfunction function = kernel(&module, "histogram.ptx", "histogram");
	CUdeviceptr d_data, d_bins;

	for (unsigned i = 0; i < N; i++) {
		data[i] = i * 2654435761u >> 13;
		expected[data[i] % BINS]++;
	}
	d_data = upload(data, sizeof(data));
	CHECK(cuMemAlloc(&d_bins, sizeof(bins)));
	CHECK(cuMemsetD32(d_bins, 0, BINS));
	void *params[] = { &d_data, &d_bins, &n };
	CHECK(cuLaunchKernel(function, 4, 1, 1, 96, 1, 1, BINS * 4, NULL, params, NULL));
	CHECK(cuMemcpyDtoH(bins, d_bins, sizeof(bins)));
	EXPECT(memcmp(bins, expected, sizeof(bins)) == 0);
	CHECK(cuModuleUnload(module));
}

/* In managed memory, which this program and the kernel reach by the same pointers. */
static void softmax(void)
{
	enum { ROWS = 3, N = 100 };
	CUmodule module;
	CUfunction function = kernel(&module, "softmax.ptx", "softmax");
	unsigned long long n = N;
	CUdeviceptr dx, dy;
	float *x, *y;
	unsigned char managed = 0;

	CHECK(cuMemAllocManaged(&dx, ROWS * N * sizeof(float), CU_MEM_ATTACH_GLOBAL));
	CHECK(cuMemAllocManaged(&dy, ROWS * N * sizeof(float), CU_MEM_ATTACH_GLOBAL));
	CHECK(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, dx));
	EXPECT(managed);
	x = (float *)dx;
	y = (float *)dy;
	for (int i = 0; i < ROWS * N; i++)
		x[i] = i * 37 % 101 * 0.1f - 5.0f;
	void *params[] = { &dx, &dy, &n };
	CHECK(cuLaunchKernel(function, ROWS, 1, 1, 32, 1, 1, 0, NULL, params, NULL));
	CHECK(cuCtxSynchronize());
	for (int row = 0; row < ROWS; row++) {
		double sum = 0;

		for (int i = 0; i < N; i++)
			sum += exp(x[row * N + i]);
		for (int i = 0; i < N; i++) {
			double expected = exp(x[row * N + i]) / sum;

			EXPECT(fabs(y[row * N + i] - expected) <= 1e-5 * expected);
		}
	}
	CHECK(cuMemFree(dx));
	CHECK(cuMemFree(dy));
	CHECK(cuModuleUnload(module));
}

/* Attention of one head: a softmax over the keys for each query, in dynamic shared memory, and the values weighted by it. */
static void attention(void)
{
	enum { N = 70, D = 48 };
	static float q[N * D], k[N * D], v[N * D], out[N * D];
	CUmodule module;
	CUfunction function = kernel(&module, "attention.ptx", "attention");
	float scale = 1.0f / sqrtf(D);
	unsigned n = N, d = D;
	CUdeviceptr dq, dk, dv, d_out;

	for (int i = 0; i < N * D; i++) {
		q[i] = i * 31 % 67 * 0.05f - 1.5f;
		k[i] = i * 43 % 71 * 0.05f - 1.7f;
		v[i] = i * 17 % 61 * 0.1f - 3.0f;
	}
	dq = upload(q, sizeof(q));
	dk = upload(k, sizeof(k));
	dv = upload(v, sizeof(v));
	CHECK(cuMemAlloc(&d_out, sizeof(out)));
	void *params[] = { &dq, &dk, &dv, &d_out, &n, &d, &scale };
	CHECK(cuLaunchKernel(function, N, 1, 1, 32, 1, 1, N * sizeof(float), NULL, params, NULL));
	CHECK(cuMemcpyDtoH(out, d_out, sizeof(out)));
	for (int row = 0; row < N; row++) {
		double weights[N], sum = 0, largest = -INFINITY;

		for (int key = 0; key < N; key++) {
			weights[key] = 0;
			for (int i = 0; i < D; i++)
				weights[key] += (double)q[row * D + i] * k[key * D + i] * scale;
			largest = fmax(largest, weights[key]);
		}
		for (int key = 0; key < N; key++) {
			weights[key] = exp(weights[key] - largest);
			sum += weights[key];
		}
		for (int i = 0; i < D; i++) {
			double expected = 0;

			for (int key = 0; key < N; key++)
				expected += weights[key] / sum * v[key * D + i];
			EXPECT(fabs(out[row * D + i] - expected) <= 1e-4);
		}
	}
	CHECK(cuModuleUnload(module));
}

/* Page-locked memory, two streams, and events that order and time them. */
static void streams(void)
{
	enum { N = 1 << 16 };
	CUmodule module;
	CUfunction function = kernel(&module, "vector_add.ptx", "vector_add");
	CUstream first, second;
	CUevent start, ready, end;
	CUdeviceptr a, b, c;
	unsigned long long n = N;
	float *host, milliseconds = -1;
	int kind = 0;

	CHECK(cuMemHostAlloc((void **)&host, N * sizeof(float), 0));
	CHECK(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)host));
	EXPECT(kind == CU_MEMORYTYPE_HOST);
	for (int i = 0; i < N; i++)
		host[i] = i;
	CHECK(cuMemAlloc(&a, N * sizeof(float)));
	CHECK(cuMemAlloc(&b, N * sizeof(float)));
	CHECK(cuMemAlloc(&c, N * sizeof(float)));
	CHECK(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&start, 0));
	CHECK(cuEventCreate(&ready, 0));
	CHECK(cuEventCreate(&end, 0));

	CHECK(cuEventRecord(start, first));
	CHECK(cuMemcpyHtoDAsync(a, host, N * sizeof(float), first));
	void *twice[] = { &a, &a, &b, &n };
	CHECK(cuLaunchKernel(function, N / 256, 1, 1, 256, 1, 1, 0, first, twice, NULL));
	CHECK(cuEventRecord(ready, first));
	CHECK(cuStreamWaitEvent(second, ready, 0));
	void *thrice[] = { &a, &b, &c, &n };
	CHECK(cuLaunchKernel(function, N / 256, 1, 1, 256, 1, 1, 0, second, thrice, NULL));
	CHECK(cuMemcpyDtoHAsync(host, c, N * sizeof(float), second));
	CHECK(cuEventRecord(end, second));
	CHECK(cuEventSynchronize(end));
	for (int i = 0; i < N; i++)
		EXPECT(host[i] == 3.0f * i);
	CHECK(cuEventElapsedTime(&milliseconds, start, end));
	EXPECT(milliseconds > 0);
	CHECK(cuEventElapsedTime(&milliseconds, end, start));
	EXPECT(milliseconds < 0);

	CHECK(cuStreamDestroy(first));
	CHECK(cuStreamDestroy(second));
	EXPECT(cuStreamSynchronize(first) == CUDA_ERROR_INVALID_HANDLE);
	CHECK(cuMemFreeHost(host));
	CHECK(cuModuleUnload(module));
}

/* Many small launches, each on the result of the one before. */
static void many_launches(void)
{
	enum { N = 256, LAUNCHES = 200 };
	CUmodule module;
	CUfunction function = kernel(&module, "vector_add.ptx", "vector_add");
	unsigned long long n = N;
	CUdeviceptr step, sum;
	CUstream stream;
	float host[N];

	for (int i = 0; i < N; i++)
		host[i] = i;
	step = upload(host, sizeof(host));
	CHECK(cuMemAlloc(&sum, sizeof(host)));
	CHECK(cuMemsetD32(sum, 0, N));
	CHECK(cuStreamCreate(&stream, 0));
	void *params[] = { &sum, &step, &sum, &n };
	for (int i = 0; i < LAUNCHES; i++)
		CHECK(cuLaunchKernel(function, 1, 1, 1, N, 1, 1, 0, stream, params, NULL));
	CHECK(cuMemcpyDtoH(host, sum, sizeof(host)));
	for (int i = 0; i < N; i++)
		EXPECT(host[i] == (float)LAUNCHES * i);
	CHECK(cuStreamDestroy(stream));
	CHECK(cuModuleUnload(module));
}

/* What is wrong is told, and the rest goes on. */
static void errors(CUdevice device)
{
	static char ptx[] = ".version 7.5\n.target sm_75\n.address_size 64\n"
			    ".visible .entry f() { fly.f32 %f1, %f2; ret; }\n";
	char log[256] = "";
	int options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)sizeof(log) };
	CUmodule module;
	CUfunction function;
	CUcontext context;
	CUdeviceptr small;
	unsigned long long n = 1 << 20;
	int status = -1;
	void *address;

	EXPECT(cuModuleLoadDataEx(&module, ptx, 2, options, values) == CUDA_ERROR_INVALID_PTX);
	EXPECT(strstr(log, "line 4, column 23: unsupported instruction `fly.f32`") != NULL);
	EXPECT((size_t)values[1] == strlen(log));
	EXPECT(cuMipmappedArrayDestroy(NULL) == CUDA_ERROR_NOT_SUPPORTED);
	EXPECT(cuGetProcAddress("cuNoSuchThing", &address, 12000, 0, &status) == CUDA_ERROR_NOT_FOUND);
	EXPECT(status == 1 && address == NULL);
	CHECK(cuGetProcAddress("cuMemAlloc", &address, 12000, 0, &status));
	EXPECT(address == (void *)cuMemAlloc);

	/* A fault ends its context, and no other. */
	CHECK(cuCtxCreate(&context, 0, device));
	function = kernel(&module, "vector_add.ptx", "vector_add");
	CHECK(cuMemAlloc(&small, 64));
	void *params[] = { &small, &small, &small, &n };
	CHECK(cuLaunchKernel(function, n / 256, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
	EXPECT(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
	EXPECT(cuMemAlloc(&small, 64) == CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK(cuCtxDestroy(context));
}

static void linker(void)
{
	char *text = read_text("reduce.ptx");
	CUlinkState state;
	CUmodule module;
	CUfunction function;
	void *image;
	size_t bytes;
	int threads;

	CHECK(cuLinkCreate(0, NULL, NULL, &state));
	CHECK(cuLinkAddData(state, CU_JIT_INPUT_PTX, text, strlen(text) + 1, "reduce", 0, NULL, NULL));
	CHECK(cuLinkComplete(state, &image, &bytes));
	CHECK(cuModuleLoadData(&module, image));
	CHECK(cuLinkDestroy(state));
	CHECK(cuModuleGetFunction(&function, module, "reduce"));
	CHECK(cuFuncGetAttribute(&threads, 0, function));
	EXPECT(threads == 1024);
	CHECK(cuFuncGetParamCount(function, &bytes));
	EXPECT(bytes == 3);
	EXPECT(cuModuleGetFunction(&function, module, "nothing") == CUDA_ERROR_NOT_FOUND);
	CHECK(cuModuleUnload(module));
	free(text);
}

static void add_one(void *number)
{
	*(int *)number += 1;
}

static void functions_of_the_program(void)
{
	int calls = 0;

	CHECK(cuLaunchHostFunc(NULL, add_one, &calls));
	CHECK(cuLaunchHostFunc_v2(NULL, add_one, &calls, CU_HOST_TASK_SPINWAIT));
	CHECK(cuCtxSynchronize());
	EXPECT(calls == 2);
	EXPECT(cuLaunchHostFunc_v2(NULL, add_one, &calls, 2) == CUDA_ERROR_INVALID_VALUE);
}

int main(int argc, char **argv)
{
	CUdevice device;
	CUcontext context;
	CUdeviceptr address, base;
	char name[64];
	int major, version;
	size_t bytes;

	if (argc != 2) {
		fprintf(stderr, "usage: kernels DIRECTORY\n");
		return 2;
	}
	directory = argv[1];
	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	CHECK(cuDeviceGetName(name, sizeof(name), device));
	CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
	CHECK(cuDeviceTotalMem(&bytes, device));
	CHECK(cuDriverGetVersion(&version));
	EXPECT(major >= 5 && version >= 11000 && bytes > 0);
	EXPECT(cuMemAlloc(&address, 64) == CUDA_ERROR_INVALID_CONTEXT);
	CHECK(cuCtxCreate(&context, 0, device));
	CHECK(cuMemAlloc(&address, 1000));
	CHECK(cuMemGetAddressRange(&base, &bytes, address + 999));
	EXPECT(base == address && bytes == 1000);

	vector_add();
	matmul();
	reduction();
	histogram();
	softmax();
	attention();
	streams();
	many_launches();
	errors(device);
	linker();
	functions_of_the_program();
	CHECK(cuCtxDestroy(context));
	printf("%s: all kernels are right\n", name);
	return 0;
}
