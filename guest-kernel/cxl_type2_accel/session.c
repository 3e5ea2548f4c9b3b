// SPDX-License-Identifier: GPL-2.0
/* Sessions: open files and what they ask for. */
#include <linux/delay.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "accel.h"

static int accel_open(struct inode *inode, struct file *filp)
{
	/* The node is there, so the device is: both go under the lock that is held here. */
	struct accel *accel = container_of(filp->private_data, struct accel, misc);
	const u64 args[CONTROL_ARGS] = {};
	struct accel_session *session;
	int err;

	session = kzalloc(sizeof(*session), GFP_KERNEL_ACCOUNT);
	if (!session)
		return -ENOMEM;
	session->accel = accel;
	session->mapping = filp->f_mapping;
	init_completion(&session->closed);
	INIT_LIST_HEAD(&session->queues);
	INIT_LIST_HEAD(&session->regions);
	mutex_lock(&accel->lock);
	err = accel_control(accel, CONTROL_SESSION_OPEN, args, &session->number);
	if (!err)
		list_add(&session->node, &accel->sessions);
	mutex_unlock(&accel->lock);
	if (err) {
		kfree(session);
		return err;
	}
	kref_get(&accel->ref);
	filp->private_data = session;
	return 0;
}

/* Ends the session in the device. After that the device touches nothing of it, and what it had can go. */
static void accel_session_close(struct accel_session *session)
{
	struct accel *accel = session->accel;
	const u64 args[CONTROL_ARGS] = { session->number };
	struct accel_queue *queue;

	accel_control_wait(accel, CONTROL_SESSION_CLOSE, args);
	mutex_lock(&accel->lock);
	list_for_each_entry(queue, &session->queues, node)
		accel_queue_stop(queue);
	accel_regions_detach(session);
	list_del_init(&session->node);
	mutex_unlock(&accel->lock);
}

/* The driver is about to let the device go: ends the sessions of files that are still open. */
void accel_sessions_detach(struct accel *accel)
{
	struct accel_session *session;
	bool ours;

	for (;;) {
		mutex_lock(&accel->lock);
		session = list_first_entry_or_null(&accel->sessions, struct accel_session, node);
		ours = session && !session->closing;
		if (ours)
			session->closing = true;
		mutex_unlock(&accel->lock);
		if (!session)
			return;
		if (!ours) {
			/* Its file is being closed. */
			usleep_range(100, 1000);
			continue;
		}
		accel_session_close(session);
		unmap_mapping_range(session->mapping, 0, 0, 1);
		complete(&session->closed);
	}
}

static int accel_release_file(struct inode *inode, struct file *filp)
{
	struct accel_session *session = filp->private_data;
	struct accel *accel = session->accel;
	bool ours;

	mutex_lock(&accel->lock);
	ours = !session->closing;
	session->closing = true;
	mutex_unlock(&accel->lock);
	if (ours)
		accel_session_close(session);
	else
		wait_for_completion(&session->closed);
	accel_queues_free(session);
	accel_regions_free(session);
	kfree(session);
	accel_put(accel);
	return 0;
}

static int accel_info(struct accel *accel, struct accel_info *info)
{
	struct pci_dev *pdev = accel->pdev;

	mutex_lock(&accel->lock);
	if (accel->gone) {
		mutex_unlock(&accel->lock);
		return -ENODEV;
	}
	*info = (struct accel_info){
		.interface = INTERFACE_VERSION,
		.driver_version = readl(accel->regs + REG_DRIVER_VERSION),
		.cc_major = readl(accel->regs + REG_CC_MAJOR),
		.cc_minor = readl(accel->regs + REG_CC_MINOR),
		.multiprocessors = readl(accel->regs + REG_MP_COUNT),
		.queues = accel->queues,
		.max_depth = accel->max_depth,
		.backend = readl(accel->regs + REG_BACKEND),
		.memory_base = MEMORY_BASE,
		.memory_bytes = accel->memory_bytes,
		.address = pci_domain_nr(pdev->bus) << 16 | pci_dev_id(pdev),
	};
	memcpy_fromio(info->name, accel->regs + REG_DEV_NAME, sizeof(info->name));
	mutex_unlock(&accel->lock);
	return 0;
}

static long accel_ioctl(struct file *filp, unsigned int request, unsigned long address)
{
	struct accel_session *session = filp->private_data;
	void __user *user = (void __user *)address;
	union {
		struct accel_info info;
		struct accel_queue_create queue;
		struct accel_region_register region;
		struct accel_number number;
	} argument;
	size_t bytes = _IOC_SIZE(request);
	int err;

	if (_IOC_TYPE(request) != IOC_MAGIC || bytes > sizeof(argument))
		return -ENOTTY;
	if (copy_from_user(&argument, user, bytes))
		return -EFAULT;
	switch (request) {
	case ACCEL_INFO:
		err = accel_info(session->accel, &argument.info);
		break;
	case ACCEL_QUEUE_CREATE:
		err = accel_queue_create(session, &argument.queue);
		break;
	case ACCEL_QUEUE_DESTROY:
		err = accel_queue_destroy(session, argument.number.number);
		break;
	case ACCEL_REGION_REGISTER:
		err = accel_region_register(session, &argument.region);
		break;
	case ACCEL_REGION_UNREGISTER:
		err = accel_region_unregister(session, argument.number.number);
		break;
	default:
		return -ENOTTY;
	}
	if (err)
		return err;
	/* Who gave an address that cannot be written has a queue or region that ends with the file. */
	return copy_to_user(user, &argument, bytes) ? -EFAULT : 0;
}

const struct file_operations accel_fops = {
	.owner = THIS_MODULE,
	.open = accel_open,
	.release = accel_release_file,
	.unlocked_ioctl = accel_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = accel_mmap,
};
