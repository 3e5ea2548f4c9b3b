// SPDX-License-Identifier: GPL-2.0
/* Regions: pages of a process that commands may name. They count as locked memory. */
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "accel.h"

/* More than any program needs beside mapped device memory. */
#define MOST_BYTES SZ_1G

static void accel_region_unpin(struct accel_region *region, unsigned long pinned)
{
	unpin_user_pages_dirty_lock(region->pages, pinned, region->writable);
	account_locked_vm(region->mm, region->count, false);
}

/* Pins the pages of a range of the caller. */
static int accel_region_pin(struct accel_region *region, unsigned long address)
{
	unsigned int flags = FOLL_LONGTERM | (region->writable ? FOLL_WRITE : 0);
	long pinned;
	int err;

	err = account_locked_vm(region->mm, region->count, true);
	if (err)
		return err;
	pinned = pin_user_pages_fast(address, region->count, flags, region->pages);
	if (pinned == region->count)
		return 0;
	accel_region_unpin(region, max(pinned, 0L));
	return pinned < 0 ? pinned : -EFAULT;
}

/* Tells the device where the pages are. Under the lock. */
static int accel_region_tell(struct accel_session *session, struct accel_region *region)
{
	struct accel *accel = session->accel;
	struct device *dev = &accel->pdev->dev;
	struct accel_segment *segments;
	struct scatterlist *sg;
	dma_addr_t list;
	size_t bytes;
	u64 number;
	int err;
	int i;

	err = dma_map_sgtable(dev, &region->table, DMA_BIDIRECTIONAL, 0);
	if (err)
		return err;
	bytes = region->table.nents * sizeof(*segments);
	segments = dma_alloc_coherent(dev, bytes, &list, GFP_KERNEL);
	if (!segments) {
		err = -ENOMEM;
		goto unmap;
	}
	for_each_sgtable_dma_sg(&region->table, sg, i) {
		segments[i].address = cpu_to_le64(sg_dma_address(sg));
		segments[i].bytes = cpu_to_le64(sg_dma_len(sg));
	}
	err = accel_control(accel, CONTROL_REGION_REGISTER,
			    (const u64[CONTROL_ARGS]){ session->number, list, region->table.nents,
						       region->writable ? REGION_WRITABLE : 0 },
			    &number);
	/* The list has been read. */
	dma_free_coherent(dev, bytes, segments, list);
	if (err)
		goto unmap;
	region->number = number;
	list_add(&region->node, &session->regions);
	return 0;

unmap:
	dma_unmap_sgtable(dev, &region->table, DMA_BIDIRECTIONAL, 0);
	return err;
}

static void accel_region_free(struct accel_region *region)
{
	sg_free_table(&region->table);
	accel_region_unpin(region, region->count);
	mmdrop(region->mm);
	kvfree(region->pages);
	kfree(region);
}

int accel_region_register(struct accel_session *session, struct accel_region_register *request)
{
	struct accel *accel = session->accel;
	struct accel_region *region;
	int err;

	if (request->reserved || request->flags & ~(u64)REGION_WRITABLE || !request->bytes ||
	    !PAGE_ALIGNED(request->address) || !PAGE_ALIGNED(request->bytes) || request->bytes > MOST_BYTES)
		return -EINVAL;
	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	region->accel = accel;
	region->writable = request->flags & REGION_WRITABLE;
	region->count = request->bytes >> PAGE_SHIFT;
	region->mm = current->mm;
	mmgrab(region->mm);
	region->pages = kvmalloc_array(region->count, sizeof(*region->pages), GFP_KERNEL_ACCOUNT);
	err = -ENOMEM;
	if (!region->pages)
		goto drop;
	err = accel_region_pin(region, request->address);
	if (err)
		goto drop;
	err = sg_alloc_table_from_pages(&region->table, region->pages, region->count, 0, request->bytes,
					GFP_KERNEL_ACCOUNT);
	if (err)
		goto unpin;
	mutex_lock(&accel->lock);
	err = list_empty(&session->node) ? -ENODEV : accel_region_tell(session, region);
	if (!err)
		request->region = region->number;
	mutex_unlock(&accel->lock);
	if (err)
		accel_region_free(region);
	return err;

unpin:
	accel_region_unpin(region, region->count);
drop:
	mmdrop(region->mm);
	kvfree(region->pages);
	kfree(region);
	return err;
}

int accel_region_unregister(struct accel_session *session, u32 number)
{
	struct accel *accel = session->accel;
	const u64 args[CONTROL_ARGS] = { session->number, number };
	struct accel_region *region;
	struct accel_region *found = NULL;
	int err;

	mutex_lock(&accel->lock);
	list_for_each_entry(region, &session->regions, node)
		if (region->number == number && !region->ending)
			found = region;
	if (found)
		found->ending = true;
	mutex_unlock(&accel->lock);
	if (!found)
		return -ENOENT;
	err = accel_control_wait(accel, CONTROL_REGION_UNREGISTER, args);
	mutex_lock(&accel->lock);
	if (list_empty(&session->node)) {
		/* The session has ended meanwhile; the region goes with the file. */
		mutex_unlock(&accel->lock);
		return -ENODEV;
	}
	dma_unmap_sgtable(&accel->pdev->dev, &found->table, DMA_BIDIRECTIONAL, 0);
	list_del(&found->node);
	mutex_unlock(&accel->lock);
	accel_region_free(found);
	return err;
}

/* Gives back what the regions of a session that has ended have of the device. */
void accel_regions_detach(struct accel_session *session)
{
	struct accel_region *region;

	list_for_each_entry(region, &session->regions, node)
		dma_unmap_sgtable(&session->accel->pdev->dev, &region->table, DMA_BIDIRECTIONAL, 0);
}

/* Forgets the regions of a session that has ended. */
void accel_regions_free(struct accel_session *session)
{
	struct accel_region *region;
	struct accel_region *next;

	list_for_each_entry_safe(region, next, &session->regions, node)
		accel_region_free(region);
}
