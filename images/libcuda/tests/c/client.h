/* What the programs here have in common: a call that fails ends the program, and says where. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdio.h>
#include <stdlib.h>

#include "cuda.h"

static inline void check(CUresult result, const char *what, int line)
{
	const char *name = "?";

	if (result == CUDA_SUCCESS)
		return;
	cuGetErrorName(result, &name);
	fprintf(stderr, "line %d: %s: %s\n", line, what, name);
	exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)

static inline void expect(int holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: not so: %s\n", line, what);
	exit(1);
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

/* Where the PTX texts are. */
static const char *directory;

static inline char *read_text(const char *name)
{
	char path[4096];
	char *text;
	long length;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "rb");
	EXPECT(file != NULL);
	fseek(file, 0, SEEK_END);
	length = ftell(file);
	rewind(file);
	text = calloc(1, length + 1);
	EXPECT(fread(text, 1, length, file) == (size_t)length);
	fclose(file);
	return text;
}

static inline CUfunction kernel(CUmodule *module, const char *file, const char *name)
{
	char *text = read_text(file);
	CUfunction function;

	CHECK(cuModuleLoadData(module, text));
	CHECK(cuModuleGetFunction(&function, *module, name));
	free(text);
	return function;
}

static inline CUdeviceptr upload(const void *data, size_t bytes)
{
	CUdeviceptr address;

	CHECK(cuMemAlloc(&address, bytes));
	CHECK(cuMemcpyHtoD(address, data, bytes));
	return address;
}

#endif
