// Runs the kernels of the benchmark through OpenCL. Prints each one's best time in seconds of processors.
//   opencl kernels.cl [name ...]
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sizes.h"

static void check(cl_int error, const char *what) {
  if (error != CL_SUCCESS) {
    fprintf(stderr, "%s: error %d\n", what, error);
    exit(1);
  }
}

static const struct {
  const char *name;
  // Arrays among the arguments, whether a factor follows them, and the last argument.
  int arrays, factor, count;
  size_t global[2], local[2];
} kernels[] = {
    {"vector_add", 3, 0, VECTOR, {VECTOR, 1}, {256, 1}},      {"saxpy", 2, 1, VECTOR, {VECTOR, 1}, {256, 1}},
    {"sgemm", 3, 0, SGEMM, {SGEMM, SGEMM}, {16, 16}},         {"reduction", 2, 0, VECTOR, {256 * 256, 1}, {256, 1}},
    {"black_scholes", 5, 0, OPTIONS, {OPTIONS, 1}, {256, 1}}, {"nbody", 2, 0, NBODY, {NBODY, 1}, {256, 1}},
};

int main(int argc, char **argv) {
  cl_platform_id platform;
  cl_device_id device;
  cl_int error;
  check(clGetPlatformIDs(1, &platform, NULL), "clGetPlatformIDs");
  check(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL), "clGetDeviceIDs");
  cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &error);
  check(error, "clCreateContext");
  cl_command_queue queue = clCreateCommandQueue(context, device, 0, &error);
  check(error, "clCreateCommandQueue");

  FILE *file = argc >= 2 ? fopen(argv[1], "r") : NULL;
  if (!file)
    return 2;
  static char text[1 << 16];
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  const char *source = text;
  cl_program program = clCreateProgramWithSource(context, 1, &source, NULL, &error);
  check(error, "clCreateProgramWithSource");
  check(clBuildProgram(program, 1, &device, "", NULL, NULL), "clBuildProgram");

  cl_mem arrays[5];
  float *values = malloc(VECTOR * sizeof(float));
  for (int k = 0; k < 5; k++) {
    for (int i = 0; i < VECTOR; i++)
      values[i] = VALUE(i, k);
    cl_mem_flags flags = CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR;
    arrays[k] = clCreateBuffer(context, flags, VECTOR * sizeof(float), values, &error);
    check(error, "clCreateBuffer");
  }
  for (unsigned k = 0; k < sizeof kernels / sizeof *kernels; k++) {
    int chosen = argc == 2;
    for (int name = 2; name < argc; name++)
      chosen |= !strcmp(argv[name], kernels[k].name);
    if (!chosen)
      continue;
    cl_kernel kernel = clCreateKernel(program, kernels[k].name, &error);
    check(error, "clCreateKernel");
    cl_uint index = 0;
    for (int array = 0; array < kernels[k].arrays; array++)
      check(clSetKernelArg(kernel, index++, sizeof(cl_mem), &arrays[array]), "clSetKernelArg");
    cl_float factor = 2.5f;
    if (kernels[k].factor)
      check(clSetKernelArg(kernel, index++, sizeof factor, &factor), "clSetKernelArg");
    cl_int count = kernels[k].count;
    check(clSetKernelArg(kernel, index++, sizeof count, &count), "clSetKernelArg");
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
      struct timespec start, end;
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
      check(clEnqueueNDRangeKernel(queue, kernel, 2, NULL, kernels[k].global, kernels[k].local, 0, NULL, NULL),
            "clEnqueueNDRangeKernel");
      check(clFinish(queue), "clFinish");
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
      double seconds = end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) * 1e-9;
      if (seconds < best)
        best = seconds;
    }
    printf("%s %.9f\n", kernels[k].name, best);
  }
}
