// SPDX-License-Identifier: GPL-2.0
/* Mappings: device memory, rings and doorbells. None of them is inherited, moved or taken apart. */
#include <linux/mm.h>
#include <linux/slab.h>

#include "accel.h"

/* A mapped range of device memory, which its session cannot free meanwhile. The mapping holds the file. */
struct accel_pin {
	struct accel_session *session;
	u64 address;
	u64 bytes;
};

static int accel_vma_may_split(struct vm_area_struct *vma, unsigned long address)
{
	return -EINVAL;
}

static int accel_vma_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

static void accel_memory_close(struct vm_area_struct *vma)
{
	struct accel_pin *pin = vma->vm_private_data;
	struct accel_session *session = pin->session;
	struct accel *accel = session->accel;

	mutex_lock(&accel->lock);
	/* A session that has ended has no pins. */
	if (!list_empty(&session->node))
		accel_control(accel, CONTROL_UNPIN,
			      (const u64[CONTROL_ARGS]){ session->number, pin->address, pin->bytes }, NULL);
	mutex_unlock(&accel->lock);
	kfree(pin);
}

static const struct vm_operations_struct accel_memory_ops = {
	.close = accel_memory_close,
	.may_split = accel_vma_may_split,
	.mremap = accel_vma_mremap,
};

static void accel_ring_close(struct vm_area_struct *vma)
{
	accel_queue_put(vma->vm_private_data);
}

static const struct vm_operations_struct accel_ring_ops = {
	.close = accel_ring_close,
	.may_split = accel_vma_may_split,
	.mremap = accel_vma_mremap,
};

static const struct vm_operations_struct accel_doorbell_ops = {
	.may_split = accel_vma_may_split,
	.mremap = accel_vma_mremap,
};

/* Device memory is memory: it is cached as such. */
static int accel_mmap_memory(struct accel_session *session, struct vm_area_struct *vma, u64 offset)
{
	struct accel *accel = session->accel;
	u64 bytes = vma->vm_end - vma->vm_start;
	const u64 args[CONTROL_ARGS] = { session->number, MEMORY_BASE + offset, bytes };
	struct accel_pin *pin;
	u64 at;
	int err;

	if (offset > accel->memory_bytes || bytes > accel->memory_bytes - offset)
		return -EINVAL;
	pin = kzalloc(sizeof(*pin), GFP_KERNEL_ACCOUNT);
	if (!pin)
		return -ENOMEM;
	*pin = (struct accel_pin){ session, MEMORY_BASE + offset, bytes };
	mutex_lock(&accel->lock);
	err = list_empty(&session->node) ? -ENODEV : accel_control(accel, CONTROL_PIN, args, &at);
	if (err)
		goto unlock;
	if (at > accel->memory_bytes || bytes > accel->memory_bytes - at) {
		err = -EIO;
		goto unpin;
	}
	err = remap_pfn_range(vma, vma->vm_start, (accel->memory + at) >> PAGE_SHIFT, bytes, vma->vm_page_prot);
	if (err)
		goto unpin;
	mutex_unlock(&accel->lock);
	vma->vm_private_data = pin;
	vma->vm_ops = &accel_memory_ops;
	return 0;

unpin:
	accel_control(accel, CONTROL_UNPIN, args, NULL);
unlock:
	mutex_unlock(&accel->lock);
	kfree(pin);
	return err;
}

static int accel_mmap_rings(struct accel_session *session, struct vm_area_struct *vma, u64 offset)
{
	struct accel *accel = session->accel;
	size_t bytes = vma->vm_end - vma->vm_start;
	struct accel_queue *queue;
	int err;

	if (offset % RING_STRIDE)
		return -EINVAL;
	mutex_lock(&accel->lock);
	queue = accel_queue_find(session, offset / RING_STRIDE);
	if (queue && bytes <= queue->bytes)
		accel_queue_get(queue);
	else
		queue = NULL;
	mutex_unlock(&accel->lock);
	if (!queue)
		return -EINVAL;
	err = remap_pfn_range(vma, vma->vm_start, virt_to_phys(queue->rings) >> PAGE_SHIFT, bytes,
			      vma->vm_page_prot);
	if (err) {
		accel_queue_put(queue);
		return err;
	}
	vma->vm_private_data = queue;
	vma->vm_ops = &accel_ring_ops;
	return 0;
}

static int accel_mmap_doorbell(struct accel_session *session, struct vm_area_struct *vma, u64 offset)
{
	struct accel *accel = session->accel;
	u64 number = offset >> PAGE_SHIFT;
	int err = -EINVAL;

	if (vma->vm_end - vma->vm_start != PAGE_SIZE)
		return -EINVAL;
	vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	vma->vm_ops = &accel_doorbell_ops;
	mutex_lock(&accel->lock);
	if (!list_empty(&session->node) && accel_queue_find(session, number))
		err = io_remap_pfn_range(vma, vma->vm_start,
					 (accel->doorbells + number * DOORBELL_STRIDE) >> PAGE_SHIFT, PAGE_SIZE,
					 vma->vm_page_prot);
	mutex_unlock(&accel->lock);
	return err;
}

int accel_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct accel_session *session = filp->private_data;
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;

	if (!(vma->vm_flags & VM_SHARED) || vma->vm_flags & VM_EXEC)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	if (offset >= MAP_DOORBELLS)
		return accel_mmap_doorbell(session, vma, offset - MAP_DOORBELLS);
	if (offset >= MAP_RINGS)
		return accel_mmap_rings(session, vma, offset - MAP_RINGS);
	return accel_mmap_memory(session, vma, offset);
}
