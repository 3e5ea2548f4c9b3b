/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The accelerator's interface as numbers: those of gpu/src/protocol/spec.rs that the kernel needs. A test of libcuda
 * compares the two.
 */
#ifndef CXL_TYPE2_ACCEL_INTERFACE_H
#define CXL_TYPE2_ACCEL_INTERFACE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ACCEL_VENDOR 0x8086
#define ACCEL_DEVICE 0x0d92

#define COMPONENT_BAR 0
#define COMMAND_BAR 2
#define MEMORY_BAR 4

#define REGISTERS_SIZE 0x1000
#define DOORBELLS 0x40000
#define DOORBELL_STRIDE 0x1000
#define MEMORY_BASE 0x700000000000

#define MAGIC 0x43584c32
#define VERSION_1 0x00010000
#define VERSION_2 0x00020000
#define MIN_DEPTH 64
#define VECTORS 64

#define REG_MAGIC 0x000
#define REG_STATUS 0x008
#define REG_DEV_NAME 0x100
#define REG_TOTAL_MEM 0x140
#define REG_CC_MAJOR 0x150
#define REG_CC_MINOR 0x154
#define REG_MP_COUNT 0x158
#define REG_BACKEND 0x164
#define REG_VERSION_MAX 0x800
#define REG_VERSION_SELECT 0x804
#define REG_QUEUES 0x808
#define REG_MAX_DEPTH 0x810
#define REG_DRIVER_VERSION 0x814
#define REG_CONTROL 0x840
#define REG_CONTROL_RESULT 0x844
#define REG_CONTROL_ARG0 0x850
#define REG_CONTROL_OUT0 0x880
#define CONTROL_ARGS 4

#define STATUS_READY 1

#define CONTROL_SESSION_OPEN 1
#define CONTROL_SESSION_CLOSE 2
#define CONTROL_QUEUE_CREATE 3
#define CONTROL_QUEUE_DESTROY 4
#define CONTROL_REGION_REGISTER 5
#define CONTROL_REGION_UNREGISTER 6
#define CONTROL_PIN 7
#define CONTROL_UNPIN 8
#define CONTROL_COHERENCE_STATISTIC 9

#define REGION_WRITABLE 1

#define RESULT_SUCCESS 0
#define RESULT_OUT_OF_MEMORY 2
#define RESULT_NOT_READY 600
#define RESULT_OUT_OF_RESOURCES 701

#define RING_ENTRIES 0x1000
#define RING_ENTRY_BYTES 64

#define IOC_MAGIC 0xce
#define MAP_RINGS 0x400000000000
#define MAP_DOORBELLS 0x800000000000
#define RING_STRIDE 0x100000
#define INTERFACE_VERSION 1

/* The device's counters of coherence, in their order. */
#define ACCEL_STATISTICS \
	"host_reads", \
	"host_writes", \
	"host_hits", \
	"host_upgrades", \
	"device_reads", \
	"device_writes", \
	"device_hits", \
	"device_misses", \
	"device_upgrades", \
	"requests", \
	"snoops_for_data", \
	"snoops_to_invalidate", \
	"snoop_responses", \
	"host_write_backs", \
	"host_clean_evictions", \
	"device_write_backs", \
	"device_fills", \
	"filter_evictions", \
	"cache_evictions", \
	"flips_to_device", \
	"flips_to_host", \
	"host_took_back", \
	"flipped_lines", \
	"link_bytes", \
	"epochs", \
	"granule"

struct accel_segment {
	__le64 address;
	__le64 bytes;
};

struct accel_info {
	__u32 interface;
	__u32 driver_version;
	__u32 cc_major;
	__u32 cc_minor;
	__u32 multiprocessors;
	__u32 queues;
	__u32 max_depth;
	__u32 backend;
	__u64 memory_base;
	__u64 memory_bytes;
	__u32 address;
	__u32 reserved;
	__u8 name[64];
};

struct accel_queue_create {
	__u32 depth;
	__s32 eventfd;
	__u32 queue;
	__u32 reserved;
};

struct accel_region_register {
	__u64 address;
	__u64 bytes;
	__u64 flags;
	__u32 region;
	__u32 reserved;
};

struct accel_number {
	__u32 number;
	__u32 reserved;
};

#define ACCEL_INFO _IOWR(IOC_MAGIC, 0, struct accel_info)
#define ACCEL_QUEUE_CREATE _IOWR(IOC_MAGIC, 1, struct accel_queue_create)
#define ACCEL_QUEUE_DESTROY _IOWR(IOC_MAGIC, 2, struct accel_number)
#define ACCEL_REGION_REGISTER _IOWR(IOC_MAGIC, 3, struct accel_region_register)
#define ACCEL_REGION_UNREGISTER _IOWR(IOC_MAGIC, 4, struct accel_number)

#endif
