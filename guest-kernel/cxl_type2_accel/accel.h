/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CXL_TYPE2_ACCEL_H
#define CXL_TYPE2_ACCEL_H

#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>

#include "interface.h"

/* A device. Lives as long as the driver is bound or a file is open. */
struct accel {
	struct kref ref;
	struct miscdevice misc;
	struct pci_dev *pdev;
	int number;
	/* Guards the registers and everything below. Taken inside mmap_lock, so nothing here may fault in user memory. */
	struct mutex lock;
	/* The driver is unbound: the registers are not to be touched any more. */
	bool gone;
	void __iomem *regs;
	phys_addr_t doorbells;
	/* Where the processors reach device memory, and whether an HDM decoder has it there rather than the BAR. */
	phys_addr_t memory;
	bool memory_is_decoded;
	u64 memory_bytes;
	u32 queues;
	u32 max_depth;
	unsigned int vectors;
	DECLARE_BITMAP(vectors_used, VECTORS);
	struct list_head sessions;
};

/* An open file. */
struct accel_session {
	struct list_head node;
	struct accel *accel;
	u64 number;
	struct address_space *mapping;
	/* Somebody ends it in the device: who closes the file, or who unbinds the driver. */
	bool closing;
	struct completion closed;
	struct list_head queues;
	struct list_head regions;
};

/* Its memory lives as long as it is mapped. */
struct accel_queue {
	struct kref ref;
	struct list_head node;
	struct accel *accel;
	u32 number;
	/* Somebody ends it. */
	bool ending;
	unsigned int vector;
	struct eventfd_ctx *event;
	void *rings;
	size_t bytes;
	dma_addr_t dma;
};

/* Pages of a process that the device may reach. */
struct accel_region {
	struct list_head node;
	struct accel *accel;
	u32 number;
	/* Somebody ends it. */
	bool ending;
	struct mm_struct *mm;
	struct page **pages;
	unsigned long count;
	bool writable;
	struct sg_table table;
};

void accel_put(struct accel *accel);
int accel_control(struct accel *accel, u32 code, const u64 *args, u64 *out);
int accel_control_wait(struct accel *accel, u32 code, const u64 *args);

extern const struct file_operations accel_fops;
void accel_sessions_detach(struct accel *accel);

int accel_queue_create(struct accel_session *session, struct accel_queue_create *create);
struct accel_queue *accel_queue_find(struct accel_session *session, u32 number);
int accel_queue_destroy(struct accel_session *session, u32 number);
void accel_queue_get(struct accel_queue *queue);
void accel_queue_put(struct accel_queue *queue);
void accel_queue_stop(struct accel_queue *queue);
void accel_queues_free(struct accel_session *session);

int accel_region_register(struct accel_session *session, struct accel_region_register *request);
int accel_region_unregister(struct accel_session *session, u32 number);
void accel_regions_detach(struct accel_session *session);
void accel_regions_free(struct accel_session *session);

int accel_mmap(struct file *filp, struct vm_area_struct *vma);

#endif
