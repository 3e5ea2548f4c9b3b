// SPDX-License-Identifier: GPL-2.0
/* Queues: rings, a doorbell and a vector that counts in an event file. */
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/log2.h>
#include <linux/slab.h>

#include "accel.h"

static irqreturn_t accel_irq(int irq, void *data)
{
	struct accel_queue *queue = data;

	if (queue->event)
		eventfd_signal(queue->event);
	return IRQ_HANDLED;
}

static void accel_queue_release(struct kref *ref)
{
	struct accel_queue *queue = container_of(ref, struct accel_queue, ref);

	free_pages_exact(queue->rings, queue->bytes);
	kfree(queue);
}

void accel_queue_get(struct accel_queue *queue)
{
	kref_get(&queue->ref);
}

void accel_queue_put(struct accel_queue *queue)
{
	kref_put(&queue->ref, accel_queue_release);
}

/* Memory for the rings: submissions and completions have the same size. */
static int accel_queue_alloc(struct accel_queue *queue, u32 depth)
{
	struct device *dev = &queue->accel->pdev->dev;

	queue->bytes = PAGE_ALIGN(RING_ENTRIES + 2 * (size_t)depth * RING_ENTRY_BYTES);
	queue->rings = alloc_pages_exact(queue->bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!queue->rings)
		return -ENOMEM;
	queue->dma = dma_map_single(dev, queue->rings, queue->bytes, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, queue->dma)) {
		free_pages_exact(queue->rings, queue->bytes);
		return -ENOMEM;
	}
	return 0;
}

static int accel_queue_start(struct accel_session *session, struct accel_queue *queue, u32 depth)
{
	struct accel *accel = session->accel;
	u64 number;
	int err;

	lockdep_assert_held(&accel->lock);
	if (list_empty(&session->node))
		return -ENODEV;
	queue->vector = find_first_zero_bit(accel->vectors_used, accel->vectors);
	if (queue->vector >= accel->vectors)
		return -ENOSPC;
	err = request_irq(pci_irq_vector(accel->pdev, queue->vector), accel_irq, 0, KBUILD_MODNAME, queue);
	if (err)
		return err;
	err = accel_control(accel, CONTROL_QUEUE_CREATE,
			    (const u64[CONTROL_ARGS]){ session->number, queue->dma, depth, queue->vector },
			    &number);
	if (err) {
		free_irq(pci_irq_vector(accel->pdev, queue->vector), queue);
		return err;
	}
	queue->number = number;
	set_bit(queue->vector, accel->vectors_used);
	list_add(&queue->node, &session->queues);
	return 0;
}

int accel_queue_create(struct accel_session *session, struct accel_queue_create *create)
{
	struct accel *accel = session->accel;
	struct accel_queue *queue;
	int err;

	if (create->reserved || !is_power_of_2(create->depth) || create->depth < MIN_DEPTH ||
	    create->depth > accel->max_depth)
		return -EINVAL;
	queue = kzalloc(sizeof(*queue), GFP_KERNEL_ACCOUNT);
	if (!queue)
		return -ENOMEM;
	kref_init(&queue->ref);
	queue->accel = accel;
	if (create->eventfd >= 0) {
		queue->event = eventfd_ctx_fdget(create->eventfd);
		if (IS_ERR(queue->event)) {
			err = PTR_ERR(queue->event);
			goto free;
		}
	}
	mutex_lock(&accel->lock);
	err = accel->gone ? -ENODEV : accel_queue_alloc(queue, create->depth);
	if (err)
		goto unlock;
	err = accel_queue_start(session, queue, create->depth);
	if (err) {
		dma_unmap_single(&accel->pdev->dev, queue->dma, queue->bytes, DMA_BIDIRECTIONAL);
		free_pages_exact(queue->rings, queue->bytes);
		goto unlock;
	}
	create->queue = queue->number;
	mutex_unlock(&accel->lock);
	return 0;

unlock:
	mutex_unlock(&accel->lock);
	if (queue->event)
		eventfd_ctx_put(queue->event);
free:
	kfree(queue);
	return err;
}

struct accel_queue *accel_queue_find(struct accel_session *session, u32 number)
{
	struct accel_queue *queue;

	lockdep_assert_held(&session->accel->lock);
	list_for_each_entry(queue, &session->queues, node)
		if (queue->number == number && !queue->ending)
			return queue;
	return NULL;
}

/* Gives back what a queue has of the machine. The device has let it go. */
void accel_queue_stop(struct accel_queue *queue)
{
	struct accel *accel = queue->accel;

	lockdep_assert_held(&accel->lock);
	free_irq(pci_irq_vector(accel->pdev, queue->vector), queue);
	clear_bit(queue->vector, accel->vectors_used);
	dma_unmap_single(&accel->pdev->dev, queue->dma, queue->bytes, DMA_BIDIRECTIONAL);
	if (queue->event) {
		/* Who sleeps is to see that the queue is gone. */
		eventfd_signal(queue->event);
		eventfd_ctx_put(queue->event);
	}
}

int accel_queue_destroy(struct accel_session *session, u32 number)
{
	struct accel *accel = session->accel;
	const u64 args[CONTROL_ARGS] = { number };
	struct accel_queue *queue;
	int err;

	mutex_lock(&accel->lock);
	queue = accel_queue_find(session, number);
	if (queue)
		queue->ending = true;
	mutex_unlock(&accel->lock);
	if (!queue)
		return -ENOENT;
	err = accel_control_wait(accel, CONTROL_QUEUE_DESTROY, args);
	/* The number, and with it the doorbell, may soon be another session's. */
	unmap_mapping_range(session->mapping, MAP_DOORBELLS + (loff_t)number * PAGE_SIZE, PAGE_SIZE, 1);
	mutex_lock(&accel->lock);
	if (list_empty(&session->node)) {
		/* The session has ended meanwhile, and with it the queue. */
		mutex_unlock(&accel->lock);
		return -ENODEV;
	}
	accel_queue_stop(queue);
	list_del(&queue->node);
	mutex_unlock(&accel->lock);
	accel_queue_put(queue);
	return err;
}

/* Forgets the queues of a session that has ended. */
void accel_queues_free(struct accel_session *session)
{
	struct accel_queue *queue;
	struct accel_queue *next;

	list_for_each_entry_safe(queue, next, &session->queues, node)
		accel_queue_put(queue);
}
