/* What the device does for its clients, one matter a call.
 *
 * usage: device DIRECTORY TASK, where DIRECTORY has the PTX texts. Exits with 0 if the task went as it should. Between the parts
 * of some tasks it says "@@STEP name" and waits for a line on its standard input, so that others may look at the device
 * meanwhile.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

static void step(const char *name)
{
	char line[64];

	printf("@@STEP %s\n", name);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		clearerr(stdin);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static unsigned *shared_words(size_t count)
{
	CUdeviceptr address;

	CHECK(cuMemAllocManaged(&address, count * sizeof(unsigned), CU_MEM_ATTACH_GLOBAL));
	return (unsigned *)address;
}

static void launch(CUfunction function, unsigned blocks, unsigned threads, CUstream stream, void **params)
{
	CHECK(cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, params, NULL));
}

/* Empty kernels, each waited for. */
static void launches(void)
{
	enum { COUNT = 300 };
	CUmodule module;
	CUfunction empty = kernel(&module, "device.ptx", "empty");
	double begin;

	launch(empty, 1, 1, NULL, NULL);
	CHECK(cuCtxSynchronize());
	step("before the launches");
	begin = now();
	for (int i = 0; i < COUNT; i++) {
		launch(empty, 1, 1, NULL, NULL);
		CHECK(cuCtxSynchronize());
	}
	begin = now() - begin;
	step("after the launches");
	printf("{\"launches\":%d,\"microseconds\":%.1f}\n", COUNT, begin / COUNT * 1e6);
}

/* What kernels print is there after each wait, between what this program prints. */
static void print(void)
{
	CUmodule module, same;
	CUfunction greet = kernel(&module, "device.ptx", "greet");
	CUfunction empty = kernel(&same, "device.ptx", "empty");

	for (int i = 0; i < 3; i++) {
		launch(greet, 1, i + 1, NULL, NULL);
		launch(empty, 1, 1, NULL, NULL);
		CHECK(cuCtxSynchronize());
		printf("and %d\n", i);
		fflush(stdout);
	}
}

/* As many kernels in the device at once as a queue has room for: the first of them, and a kernel of another stream that all of
 * them wait for, end when they are told to. */
static void flight(void)
{
	enum { DEPTH = 64 };
	CUmodule module, same;
	CUfunction gate = kernel(&module, "device.ptx", "gate");
	CUfunction count = kernel(&same, "device.ptx", "count");
	unsigned *words = shared_words(3), times = 1;
	CUdeviceptr first = (CUdeviceptr)&words[0], second = (CUdeviceptr)&words[1], counter = (CUdeviceptr)&words[2];
	CUstream before, stream;
	CUevent event;

	CHECK(cuStreamCreate(&before, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, 0));
	void *first_gate[] = { &first };
	launch(gate, 1, 1, before, first_gate);
	CHECK(cuEventRecord(event, before));
	CHECK(cuStreamWaitEvent(stream, event, 0));
	void *second_gate[] = { &second };
	launch(gate, 1, 1, stream, second_gate);
	void *counting[] = { &counter, &times };
	for (int i = 1; i < DEPTH; i++)
		launch(count, 1, 1, stream, counting);
	step("behind the first gate");
	__atomic_store_n(&words[0], 1, __ATOMIC_RELEASE);
	step("behind the second gate");
	EXPECT(__atomic_load_n(&words[2], __ATOMIC_ACQUIRE) == 0);
	__atomic_store_n(&words[1], 1, __ATOMIC_RELEASE);
	CHECK(cuStreamSynchronize(stream));
	EXPECT(words[2] == DEPTH - 1);
}

/* Copies in both directions, and what the same costs between two buffers of this program. */
static void copies(void)
{
	enum { BYTES = 32 << 20, WORDS = BYTES / 4, ROUNDS = 3 };
	unsigned *from = malloc(BYTES), *to = malloc(BYTES);
	double in = 1e9, out = 1e9, beside = 1e9, begin;
	CUdeviceptr address;

	EXPECT(from != NULL && to != NULL);
	CHECK(cuMemAlloc(&address, BYTES));
	memset(to, 1, BYTES);
	step("before the copies");
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < WORDS; i++)
			from[i] = (i + round) * 2654435761u;
		begin = now();
		CHECK(cuMemcpyHtoD(address, from, BYTES));
		in = now() - begin < in ? now() - begin : in;
		begin = now();
		CHECK(cuMemcpyDtoH(to, address, BYTES));
		out = now() - begin < out ? now() - begin : out;
		EXPECT(memcmp(from, to, BYTES) == 0);
		begin = now();
		memcpy(to, from, BYTES);
		beside = now() - begin < beside ? now() - begin : beside;
	}
	step("after the copies");
	printf("{\"bytes\":%d,\"htod\":%.3f,\"dtoh\":%.3f,\"memcpy\":%.3f}\n", BYTES, BYTES / in * 1e-9,
	       BYTES / out * 1e-9, BYTES / beside * 1e-9);
	CHECK(cuMemFree(address));
	free(from);
	free(to);
}

/* Has memory and a kernel that does not end; says where the memory is and waits to be killed. */
static void hold(void)
{
	enum { WORDS = 16 << 20 };
	CUmodule module;
	CUfunction gate = kernel(&module, "device.ptx", "gate");
	unsigned *words = shared_words(WORDS);
	CUdeviceptr flag = (CUdeviceptr)&words[0];

	for (int i = 1; i < WORDS; i += 1024)
		words[i] = 0x5ec7e7;
	void *params[] = { &flag };
	launch(gate, 1, 1, NULL, params);
	printf("%llu\n", flag + 4);
	fflush(stdout);
	for (;;)
		pause();
}

/* A load from an address, or a store to it, in a context of its own. Addresses that are small are offsets in a buffer. */
static void probe(CUdevice device, CUdeviceptr address, int store, int expected)
{
	enum { OFFSETS = 1 << 20 };
	CUcontext context;
	CUmodule module;
	CUfunction move;
	CUdeviceptr own;
	unsigned found;
	int result;

	CHECK(cuCtxCreate(&context, 0, device));
	move = kernel(&module, "device.ptx", "move");
	CHECK(cuMemAlloc(&own, 4096));
	if (address < OFFSETS)
		address += own;
	void *params[] = { store ? &address : &own, store ? &own : &address };
	launch(move, 1, 1, NULL, params);
	result = cuCtxSynchronize();
	if (result != expected) {
		fprintf(stderr, "%s at %#llx: %d\n", store ? "store" : "load", address, result);
		exit(1);
	}
	EXPECT(cuMemcpyDtoH(&found, own, 4) == expected);
	CHECK(cuCtxDestroy(context));
}

/* Pointers that are not this program's; one more may be given, which is another's. */
static void pointers(CUdevice device, CUdeviceptr foreign)
{
	static int local;
	const CUdeviceptr base = 0x700000000000;
	const CUdeviceptr bad[] = {
		(CUdeviceptr)-4, (CUdeviceptr)1 << 63, 0xffff888000000000, 0xffffffff81000000, 0x7fffffffe000,
		base - 4, base + ((CUdeviceptr)1 << 40), (CUdeviceptr)&local, 4096, 8192, 1 << 19, foreign,
	};

	for (int store = 0; store < 2; store++) {
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
			if (bad[i])
				probe(device, bad[i], store, CUDA_ERROR_ILLEGAL_ADDRESS);
		probe(device, 4092, store, CUDA_SUCCESS);
	}
}

/* Messages between this program and a kernel, both over memory that both have mapped; then additions from both sides. */
static void litmus(void)
{
	enum { FLAG = 0, QUESTION = 16, ANSWER = 32, DONE = 48, COUNTER = 64, WORDS = 80 };
	enum { BLOCKS = 4, THREADS = 64 };
	CUmodule module, same;
	CUfunction answer = kernel(&module, "device.ptx", "answer");
	CUfunction count = kernel(&same, "device.ptx", "count");
	unsigned *box = shared_words(WORDS), rounds = 300, times = 100, own = 20000;
	CUdeviceptr address = (CUdeviceptr)box, counter = (CUdeviceptr)&box[COUNTER];

	void *game[] = { &address, &rounds };
	launch(answer, 1, 1, NULL, game);
	for (unsigned round = 1; round <= rounds; round++) {
		unsigned question = round * 2654435761u;

		box[QUESTION] = question;
		__atomic_store_n(&box[FLAG], round, __ATOMIC_RELEASE);
		while (__atomic_load_n(&box[DONE], __ATOMIC_ACQUIRE) != round)
			;
		EXPECT(((volatile unsigned *)box)[ANSWER] == question + 1);
	}
	CHECK(cuCtxSynchronize());

	void *counting[] = { &counter, &times };
	launch(count, BLOCKS, THREADS, NULL, counting);
	for (unsigned i = 0; i < own; i++)
		__atomic_fetch_add(&box[COUNTER], 1, __ATOMIC_RELAXED);
	CHECK(cuCtxSynchronize());
	EXPECT(box[COUNTER] == BLOCKS * THREADS * times + own);
	printf("%u messages each way, %u additions\n", rounds, box[COUNTER]);
}

/* Counters that this program compares, by their names. */
struct counter {
	const char *name;
	unsigned long long by;
};

static unsigned long long counters(unsigned long long *all, const char *name)
{
	size_t there_are;

	CHECK(cxlGetCoherencyStats(all, 64, &there_are));
	for (size_t i = 0; i < there_are; i++)
		if (!strcmp(cxlCoherencyStatName(i), name))
			return all[i];
	EXPECT(!"a known counter");
	return 0;
}

/* All counters are to have grown by this since `before`, and the others not at all; but for the epochs, which the clock ends
 * as well. */
static void grown(unsigned long long *before, const struct counter *expected, size_t count)
{
	unsigned long long now[64];
	size_t there_are;

	CHECK(cxlGetCoherencyStats(now, 64, &there_are));
	for (size_t i = 0; i < there_are; i++) {
		const char *name = cxlCoherencyStatName(i);
		unsigned long long by = 0;

		if (!strcmp(name, "epochs"))
			continue;
		for (size_t j = 0; j < count; j++)
			if (!strcmp(expected[j].name, name))
				by = expected[j].by;
		if (now[i] - before[i] != by) {
			fprintf(stderr, "%s has grown by %llu, not %llu\n", name, now[i] - before[i], by);
			exit(1);
		}
	}
	memcpy(before, now, sizeof(now));
}
#define GROWN(before, ...)                                                                      \
	do {                                                                                    \
		const struct counter expected[] = { __VA_ARGS__ };                              \
		grown(before, expected, sizeof(expected) / sizeof(expected[0]));                \
	} while (0)

/* Pages in either bias, whatever is counted. */
static void bias(void)
{
	unsigned long long all[64];
	unsigned long long to_device = counters(all, "flips_to_device"), to_host = counters(all, "flips_to_host");
	CUdeviceptr address;
	unsigned is = 7;

	CHECK(cxlCoherentAlloc(&address, 3 * 4096));
	CHECK(cxlGetBias(&is, address));
	EXPECT(is == 0);
	CHECK(cxlSetBias(address, 2 * 4096, 1));
	CHECK(cxlSetBias(address + 10, 1, 1));
	CHECK(cxlGetBias(&is, address + 4097));
	EXPECT(is == 1);
	CHECK(cxlBiasFlip(address + 4096, 2 * 4096));
	CHECK(cxlGetBias(&is, address + 4096));
	EXPECT(is == 0);
	CHECK(cxlGetBias(&is, address + 2 * 4096));
	EXPECT(is == 1);
	EXPECT(counters(all, "flips_to_device") == to_device + 3);
	EXPECT(counters(all, "flips_to_host") == to_host + 1);
	EXPECT(cxlSetBias(address, 4 * 4096, 1) == CUDA_ERROR_INVALID_VALUE);
	EXPECT(cxlSetBias(address, 4096, 2) == CUDA_ERROR_INVALID_VALUE);
	EXPECT(cxlSetBias(4096, 4096, 1) == CUDA_ERROR_INVALID_VALUE);
	CHECK(cxlCoherentFree(address));
	EXPECT(cxlGetBias(&is, address) == CUDA_ERROR_INVALID_VALUE);
}

/* Where each access is counted: what this program and a kernel do to two lines, step by step. */
static void lines(void)
{
	enum { FIRST = 0, SECOND = 16 };
	unsigned long long all[64];
	CUmodule module;
	CUfunction move = kernel(&module, "device.ptx", "move");
	volatile unsigned *words = shared_words(2048);
	CUdeviceptr first = (CUdeviceptr)&words[FIRST], second = (CUdeviceptr)&words[SECOND];
	void *params[] = { &second, &first };

	counters(all, "host_reads");
	words[FIRST] = 41;
	words[FIRST + 1] = 1;
	GROWN(all, { "host_writes", 2 }, { "requests", 1 }, { "host_hits", 1 }, { "link_bytes", 64 });
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	GROWN(all, { "device_reads", 1 }, { "device_writes", 1 }, { "device_misses", 2 }, { "device_fills", 2 },
	      { "snoops_for_data", 1 }, { "snoop_responses", 1 }, { "host_write_backs", 1 }, { "link_bytes", 64 });
	EXPECT(words[SECOND] == 41);
	GROWN(all, { "host_reads", 1 }, { "requests", 1 }, { "device_write_backs", 1 }, { "link_bytes", 64 });
	words[FIRST] = 42;
	GROWN(all, { "host_writes", 1 }, { "host_upgrades", 1 }, { "requests", 1 });

	/* In device bias the kernel asks nobody. */
	CHECK(cxlSetBias(first, 4096, 1));
	GROWN(all, { "flips_to_device", 1 }, { "flipped_lines", 2 }, { "snoops_to_invalidate", 2 },
	      { "snoop_responses", 2 }, { "host_write_backs", 1 }, { "link_bytes", 64 });
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	GROWN(all, { "device_reads", 1 }, { "device_writes", 1 }, { "device_misses", 1 }, { "device_fills", 1 },
	      { "device_upgrades", 1 });
	EXPECT(words[SECOND] == 42);
	GROWN(all, { "host_reads", 1 }, { "host_took_back", 1 }, { "flips_to_host", 1 }, { "flipped_lines", 2 },
	      { "device_write_backs", 1 }, { "requests", 1 }, { "link_bytes", 64 });
	printf("each line is accounted for\n");
}

/* Where pages are observed: what this program and a kernel do to two pages, step by step. */
static void pages(void)
{
	enum { WORDS = 1024, FIRST = 0, SECOND = WORDS };
	unsigned long long all[64];
	CUmodule module;
	CUfunction move = kernel(&module, "device.ptx", "move");
	volatile unsigned *words = shared_words(2 * WORDS);
	CUdeviceptr first = (CUdeviceptr)&words[FIRST], second = (CUdeviceptr)&words[SECOND];
	void *params[] = { &second, &first };

	EXPECT(counters(all, "granule") == 4096);
	words[FIRST] = 41;
	GROWN(all, { "host_writes", 1 }, { "requests", 1 }, { "link_bytes", 4096 });
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	GROWN(all, { "device_reads", 1 }, { "device_writes", 1 }, { "device_misses", 2 }, { "device_fills", 2 },
	      { "snoops_for_data", 1 }, { "snoop_responses", 1 }, { "host_write_backs", 1 }, { "link_bytes", 4096 });
	EXPECT(words[SECOND] == 41);
	GROWN(all, { "host_reads", 1 }, { "requests", 1 }, { "device_write_backs", 1 }, { "link_bytes", 4096 });
	words[FIRST] = 42;
	GROWN(all, { "host_writes", 1 }, { "host_upgrades", 1 }, { "requests", 1 });

	/* In device bias the kernel asks nobody. */
	CHECK(cxlSetBias(first, 2 * 4096, 1));
	GROWN(all, { "flips_to_device", 2 }, { "flipped_lines", 2 }, { "snoops_to_invalidate", 2 },
	      { "snoop_responses", 2 }, { "host_write_backs", 1 }, { "link_bytes", 4096 });
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	GROWN(all, { "device_reads", 1 }, { "device_writes", 1 }, { "device_misses", 1 }, { "device_fills", 1 },
	      { "device_upgrades", 1 });
	/* And what it has by now costs nothing. */
	for (int i = 0; i < 10; i++)
		launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	GROWN(all, { "epochs", 0 });
	EXPECT(words[SECOND] == 42);
	GROWN(all, { "host_reads", 1 }, { "host_took_back", 1 }, { "flips_to_host", 1 }, { "flipped_lines", 1 },
	      { "device_write_backs", 1 }, { "requests", 1 }, { "link_bytes", 4096 });
	printf("each page is accounted for\n");
}

/* One word of many is changed by a kernel: in memory that both share, and with copies there and back. What goes over the link
 * is told by the device. */
static void sharing(void)
{
	enum { WORDS = 1024, PAGES = 64, ALL = PAGES * WORDS, TO = 3 * WORDS, FROM = 40 * WORDS };
	unsigned long long all[64], before, shared, copied;
	CUmodule module;
	CUfunction move = kernel(&module, "device.ptx", "move");
	volatile unsigned *words = shared_words(ALL);
	CUdeviceptr to = (CUdeviceptr)&words[TO], from = (CUdeviceptr)&words[FROM], address;
	unsigned *own = malloc(ALL * sizeof(unsigned));
	void *params[] = { &to, &from };

	EXPECT(own != NULL);
	for (unsigned i = 0; i < ALL; i++)
		own[i] = words[i] = i * 2654435761u;

	before = counters(all, "link_bytes");
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	EXPECT(words[TO] == own[FROM]);
	shared = counters(all, "link_bytes") - before;

	before = counters(all, "link_bytes");
	CHECK(cuMemAlloc(&address, ALL * sizeof(unsigned)));
	CHECK(cuMemcpyHtoD(address, own, ALL * sizeof(unsigned)));
	to = address + TO * sizeof(unsigned);
	from = address + FROM * sizeof(unsigned);
	launch(move, 1, 1, NULL, params);
	CHECK(cuCtxSynchronize());
	CHECK(cuMemcpyDtoH(own, address, ALL * sizeof(unsigned)));
	EXPECT(own[TO] == own[FROM]);
	copied = counters(all, "link_bytes") - before;

	/* Two pages to the kernel and one back, beside all of them. */
	EXPECT(shared == 3 * 4096);
	EXPECT(copied >= PAGES * 4096);
	printf("{\"shared\":%llu,\"copied\":%llu}\n", shared, copied);
}

int main(int argc, char **argv)
{
	CUdevice device;
	CUcontext context;
	const char *task = argc >= 3 ? argv[2] : "";

	if (argc < 3) {
		fprintf(stderr, "usage: device DIRECTORY launches|print|flight|copies|hold|litmus|bias|lines|pages|sharing|pointers [ADDRESS]\n");
		return 2;
	}
	directory = argv[1];
	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	if (!strcmp(task, "pointers")) {
		pointers(device, argc > 3 ? strtoull(argv[3], NULL, 0) : 0);
		return 0;
	}
	CHECK(cuCtxCreate(&context, 0, device));
	if (!strcmp(task, "launches"))
		launches();
	else if (!strcmp(task, "flight"))
		flight();
	else if (!strcmp(task, "print"))
		print();
	else if (!strcmp(task, "copies"))
		copies();
	else if (!strcmp(task, "hold"))
		hold();
	else if (!strcmp(task, "litmus"))
		litmus();
	else if (!strcmp(task, "bias"))
		bias();
	else if (!strcmp(task, "lines"))
		lines();
	else if (!strcmp(task, "pages"))
		pages();
	else if (!strcmp(task, "sharing"))
		sharing();
	else
		EXPECT(!"a known task");
	CHECK(cuCtxDestroy(context));
	return 0;
}
