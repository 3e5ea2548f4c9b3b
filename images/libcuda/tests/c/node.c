/* The device node by itself: what the kernel module refuses, and that two sessions have nothing of each other.
 *
 * usage: node [DEVICE [DAX]]. Exits with 0 if everything was as it should be. With the device node of an expander's memory, bytes
 * go between that and the accelerator's, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interface.h"

#define PAGE 4096
#define DEPTH 64
#define RING_BYTES (RING_ENTRIES + 2 * DEPTH * RING_ENTRY_BYTES)

static void expect(int holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: not so: %s (%s)\n", line, what, strerror(errno));
	exit(1);
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)
#define REFUSED(call, code) EXPECT((call) == -1 && errno == (code))
#define UNMAPPED(call, code) EXPECT((call) == MAP_FAILED && errno == (code))

static const char *path = "/dev/cxl_gpu0";

static int open_session(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	EXPECT(fd >= 0);
	return fd;
}

static int create(int fd, unsigned depth, int event, unsigned reserved, unsigned *queue)
{
	struct accel_queue_create request = { .depth = depth, .eventfd = event, .reserved = reserved };
	int result = ioctl(fd, ACCEL_QUEUE_CREATE, &request);

	*queue = request.queue;
	return result;
}

static int destroy(int fd, unsigned queue)
{
	struct accel_number request = { .number = queue };

	return ioctl(fd, ACCEL_QUEUE_DESTROY, &request);
}

static int enroll(int fd, void *address, unsigned long bytes, unsigned long flags, unsigned *region)
{
	struct accel_region_register request = {
		.address = (unsigned long)address, .bytes = bytes, .flags = flags
	};
	int result = ioctl(fd, ACCEL_REGION_REGISTER, &request);

	*region = request.region;
	return result;
}

static int withdraw(int fd, unsigned region)
{
	struct accel_number request = { .number = region };

	return ioctl(fd, ACCEL_REGION_UNREGISTER, &request);
}

static void *map(int fd, unsigned long bytes, unsigned long offset)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

static void requests(int fd)
{
	struct accel_info info;
	unsigned number;

	REFUSED(ioctl(fd, _IO(IOC_MAGIC, 0), NULL), ENOTTY);
	REFUSED(ioctl(fd, _IOWR(IOC_MAGIC, 99, struct accel_number), &info), ENOTTY);
	REFUSED(ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, IOC_MAGIC, 0, 4096), &info), ENOTTY);
	REFUSED(ioctl(fd, ACCEL_INFO, (void *)1), EFAULT);
	EXPECT(ioctl(fd, ACCEL_INFO, &info) == 0);
	EXPECT(info.interface == INTERFACE_VERSION && info.memory_base == MEMORY_BASE && info.memory_bytes > 0);
	REFUSED(create(fd, 0, -1, 0, &number), EINVAL);
	REFUSED(create(fd, DEPTH / 2, -1, 0, &number), EINVAL);
	REFUSED(create(fd, DEPTH + 1, -1, 0, &number), EINVAL);
	REFUSED(create(fd, 2 * info.max_depth, -1, 0, &number), EINVAL);
	REFUSED(create(fd, DEPTH, -1, 1, &number), EINVAL);
	REFUSED(create(fd, DEPTH, 1000, 0, &number), EBADF);
	REFUSED(create(fd, DEPTH, fd, 0, &number), EINVAL);
	REFUSED(destroy(fd, 0), ENOENT);
	REFUSED(destroy(fd, -1), ENOENT);
	REFUSED(withdraw(fd, 1), ENOENT);
}

static void regions(int fd)
{
	char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const unsigned long limit = 64 << 20;
	unsigned number;
	char *large;

	EXPECT(memory != MAP_FAILED);
	EXPECT(munmap(memory + 2 * PAGE, PAGE) == 0);
	EXPECT(mprotect(memory + 3 * PAGE, PAGE, PROT_READ) == 0);
	REFUSED(enroll(fd, memory + 1, PAGE, 0, &number), EINVAL);
	REFUSED(enroll(fd, memory, PAGE - 1, 0, &number), EINVAL);
	REFUSED(enroll(fd, memory, 0, 0, &number), EINVAL);
	REFUSED(enroll(fd, memory, PAGE, 2, &number), EINVAL);
	REFUSED(enroll(fd, memory, 1ul << 40, 0, &number), EINVAL);
	REFUSED(enroll(fd, memory, 3 * PAGE, 0, &number), EFAULT);
	REFUSED(enroll(fd, memory + 3 * PAGE, PAGE, REGION_WRITABLE, &number), EFAULT);
	REFUSED(enroll(fd, (void *)0xffff888000000000, PAGE, 0, &number), EFAULT);
	/* More than an ordinary user may lock. */
	large = mmap(NULL, limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT(large != MAP_FAILED);
	if (geteuid() != 0)
		REFUSED(enroll(fd, large, limit, 0, &number), ENOMEM);
	/* What was refused has left nothing locked behind: this is less than may be. */
	for (int i = 0; i < 100; i++) {
		EXPECT(enroll(fd, large, 1 << 20, REGION_WRITABLE, &number) == 0);
		EXPECT(withdraw(fd, number) == 0);
		REFUSED(withdraw(fd, number), ENOENT);
	}
	/* These go with the file. */
	EXPECT(enroll(fd, memory, 2 * PAGE, REGION_WRITABLE, &number) == 0);
	EXPECT(enroll(fd, memory + 3 * PAGE, PAGE, 0, &number) == 0);
}

static void mappings(int fd, int other)
{
	const unsigned long bytes = (RING_BYTES + PAGE - 1) / PAGE * PAGE;
	unsigned queue, foreign;
	char *rings, *doorbell;
	int status;

	EXPECT(create(fd, DEPTH, -1, 0, &queue) == 0);
	EXPECT(create(other, DEPTH, -1, 0, &foreign) == 0 && foreign != queue);
	/* Device memory that nobody has allocated, and beyond all of it. */
	UNMAPPED(map(fd, PAGE, 0), EINVAL);
	UNMAPPED(map(fd, PAGE, MAP_RINGS - PAGE), EINVAL);
	UNMAPPED(map(fd, bytes, MAP_RINGS + foreign * RING_STRIDE), EINVAL);
	UNMAPPED(map(fd, bytes + PAGE, MAP_RINGS + queue * RING_STRIDE), EINVAL);
	UNMAPPED(map(fd, PAGE, MAP_RINGS + queue * RING_STRIDE + PAGE), EINVAL);
	UNMAPPED(map(fd, PAGE, MAP_RINGS + 1000 * RING_STRIDE), EINVAL);
	UNMAPPED(map(fd, PAGE, MAP_DOORBELLS + foreign * DOORBELL_STRIDE), EINVAL);
	UNMAPPED(map(fd, 2 * PAGE, MAP_DOORBELLS + queue * DOORBELL_STRIDE), EINVAL);
	UNMAPPED(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, MAP_RINGS + queue * RING_STRIDE), EINVAL);
	UNMAPPED(mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, MAP_RINGS + queue * RING_STRIDE), EINVAL);
	rings = map(fd, bytes, MAP_RINGS + queue * RING_STRIDE);
	doorbell = map(fd, PAGE, MAP_DOORBELLS + queue * DOORBELL_STRIDE);
	EXPECT(rings != MAP_FAILED && doorbell != MAP_FAILED);
	UNMAPPED(mremap(rings, bytes, 2 * bytes, MREMAP_MAYMOVE), EFAULT);
	EXPECT(munmap(rings, PAGE) == -1);
	/* A child has none of it. */
	if (fork() == 0) {
		rings[0] = 1;
		_exit(0);
	}
	EXPECT(wait(&status) > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	/* A queue that is gone leaves its rings mapped and takes its doorbell away. */
	REFUSED(destroy(other, queue), ENOENT);
	EXPECT(destroy(fd, queue) == 0);
	REFUSED(destroy(fd, queue), ENOENT);
	rings[0] = 1;
	if (fork() == 0) {
		/* Not inherited in any case: mapped anew, which is refused. */
		_exit(map(fd, PAGE, MAP_DOORBELLS + queue * DOORBELL_STRIDE) == MAP_FAILED ? 0 : 1);
	}
	EXPECT(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A ring with nonsense in it stops, says so, and hurts nobody else. */
static void nonsense(int fd, int other)
{
	const unsigned long bytes = (RING_BYTES + PAGE - 1) / PAGE * PAGE;
	int event = eventfd(0, EFD_CLOEXEC);
	unsigned queue, unharmed;
	unsigned long long count;
	volatile unsigned *rings, *doorbell;

	EXPECT(create(fd, DEPTH, event, 0, &queue) == 0);
	rings = map(fd, bytes, MAP_RINGS + queue * RING_STRIDE);
	doorbell = map(fd, PAGE, MAP_DOORBELLS + queue * DOORBELL_STRIDE);
	EXPECT(rings != MAP_FAILED && doorbell != MAP_FAILED);
	/* More submissions than there are entries. */
	rings[0] = 0x12345678;
	*doorbell = 1;
	EXPECT(read(event, &count, sizeof(count)) == sizeof(count));
	EXPECT(rings[0x180 / 4] != 0);
	EXPECT(create(other, DEPTH, -1, 0, &unharmed) == 0);
	EXPECT(destroy(other, unharmed) == 0);
}

/* Executes a command, which succeeds; its first value. */
static unsigned long long execute(char *rings, volatile unsigned *doorbell, const unsigned long long command[8])
{
	enum { SQ_TAIL = 0, CQ_TAIL = 0x80, CQ_HEAD = 0xc0, WANT_DOORBELL = 0x100 };
	unsigned *tail = (unsigned *)(rings + SQ_TAIL), *done = (unsigned *)(rings + CQ_TAIL);
	unsigned number = *tail;
	unsigned long long *completion;

	memcpy(rings + RING_ENTRIES + number % DEPTH * RING_ENTRY_BYTES, command, RING_ENTRY_BYTES);
	__atomic_store_n(tail, number + 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n((unsigned *)(rings + WANT_DOORBELL), __ATOMIC_SEQ_CST))
		*doorbell = 1;
	while (__atomic_load_n(done, __ATOMIC_ACQUIRE) != number + 1)
		usleep(1000);
	completion = (unsigned long long *)(rings + RING_ENTRIES + (DEPTH + number % DEPTH) * RING_ENTRY_BYTES);
	EXPECT((unsigned)completion[1] == RESULT_SUCCESS);
	__atomic_store_n((unsigned *)(rings + CQ_HEAD), number + 1, __ATOMIC_RELEASE);
	return completion[4];
}

/* The device copies from an expander's memory to its own, and back to the next page there: it is told where the expander's
 * pages are. */
static void peer(int fd, const char *dax)
{
	enum { MEM_ALLOC = 0x20, MEM_COPY_HTOD = 0x22, MEM_COPY_DTOH = 0x23, MAPPABLE = 1, WORDS = PAGE / 4 };
	const unsigned long area = 2 << 20, bytes = (RING_BYTES + PAGE - 1) / PAGE * PAGE;
	int memory = open(dax, O_RDWR | O_CLOEXEC);
	volatile unsigned *expander, *device, *doorbell;
	unsigned long long address, span;
	unsigned queue, region;
	char *rings;

	EXPECT(memory >= 0);
	expander = mmap(NULL, area, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	EXPECT(expander != MAP_FAILED);
	EXPECT(enroll(fd, (void *)expander, 2 * PAGE, REGION_WRITABLE, &region) == 0);
	EXPECT(create(fd, DEPTH, -1, 0, &queue) == 0);
	rings = map(fd, bytes, MAP_RINGS + queue * RING_STRIDE);
	doorbell = map(fd, PAGE, MAP_DOORBELLS + queue * DOORBELL_STRIDE);
	EXPECT(rings != MAP_FAILED && doorbell != MAP_FAILED);
	address = execute(rings, doorbell, (unsigned long long[8]){ MEM_ALLOC | MAPPABLE << 16, 0, 0, 0, PAGE });
	device = map(fd, PAGE, address - MEMORY_BASE);
	EXPECT(device != MAP_FAILED);
	for (unsigned i = 0; i < WORDS; i++)
		expander[i] = i * 2654435761u;
	span = (unsigned long long)region << 32;
	execute(rings, doorbell, (unsigned long long[8]){ MEM_COPY_HTOD | span, 0, PAGE, 0, address });
	for (unsigned i = 0; i < WORDS; i++) {
		EXPECT(device[i] == i * 2654435761u);
		device[i] = ~device[i];
	}
	execute(rings, doorbell, (unsigned long long[8]){ MEM_COPY_DTOH | span, PAGE, PAGE, 0, address });
	for (unsigned i = 0; i < WORDS; i++)
		EXPECT(expander[WORDS + i] == ~(i * 2654435761u));
	close(memory);
}

int main(int argc, char **argv)
{
	int fd, other;

	if (argc > 1)
		path = argv[1];
	fd = open_session();
	other = open_session();
	requests(fd);
	regions(fd);
	mappings(fd, other);
	nonsense(fd, other);
	if (argc > 2)
		peer(fd, argv[2]);
	close(fd);
	close(other);
	printf("%s refuses what it should\n", path);
	return 0;
}
