// SPDX-License-Identifier: GPL-2.0
/*
 * A CXL Type 2 accelerator: binds the function, enables CXL.cache and CXL.mem, and gives every user a device node.
 *
 * An open node is a session of the device: its memory, programs and faults are nobody else's. Commands go through rings that
 * the process maps; the kernel is asked only for queues, for regions of memory that commands may name, and for mappings.
 */
#include <linux/bitfield.h>
#include <linux/delay.h>
#include <linux/idr.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "accel.h"

/* The DVSEC for CXL devices (CXL 3.1, section 8.1.3). */
#define CXL_VENDOR 0x1e98
#define CXL_DEVICE_DVSEC 0
#define CXL_CAPABILITY 0x0a
#define CXL_CACHE_CAPABLE BIT(0)
#define CXL_MEM_CAPABLE BIT(2)
#define CXL_CONTROL 0x0c
#define CXL_CACHE_ENABLE BIT(0)
#define CXL_MEM_ENABLE BIT(2)
#define CXL_CAPABILITY2 0x16
#define CXL_CACHE_UNIT GENMASK(3, 0)
#define CXL_CACHE_SIZE GENMASK(15, 8)

/* CXL.mem registers (section 8.2.4) within the component registers, and the first of the HDM decoders among them. */
#define CXL_CM SZ_4K
#define CXL_CM_SIZE SZ_8K
#define CXL_CM_ENTRIES GENMASK(31, 24)
#define CXL_CM_ID GENMASK(15, 0)
#define CXL_CM_POINTER GENMASK(31, 20)
#define CXL_CM_HDM 5
#define HDM_GLOBAL_CONTROL 0x04
#define HDM_ENABLE BIT(1)
#define HDM_BASE 0x10
#define HDM_SIZE 0x18
#define HDM_CONTROL 0x20
#define HDM_WAYS GENMASK(7, 4)
#define HDM_COMMITTED BIT(10)
#define HDM_SKIP 0x24

static DEFINE_IDA(accel_numbers);

static void accel_release(struct kref *ref)
{
	struct accel *accel = container_of(ref, struct accel, ref);

	ida_free(&accel_numbers, accel->number);
	pci_dev_put(accel->pdev);
	kfree(accel->misc.name);
	kfree(accel);
}

void accel_put(struct accel *accel)
{
	kref_put(&accel->ref, accel_release);
}

/* Performs a control command, which has its outcome when the write is done. Under the lock. */
int accel_control(struct accel *accel, u32 code, const u64 *args, u64 *out)
{
	int i;

	lockdep_assert_held(&accel->lock);
	if (accel->gone)
		return -ENODEV;
	for (i = 0; i < CONTROL_ARGS; i++)
		writeq(args[i], accel->regs + REG_CONTROL_ARG0 + 8 * i);
	writel(code, accel->regs + REG_CONTROL);
	switch (readl(accel->regs + REG_CONTROL_RESULT)) {
	case RESULT_SUCCESS:
		if (out)
			*out = readq(accel->regs + REG_CONTROL_OUT0);
		return 0;
	case RESULT_NOT_READY:
		return -EAGAIN;
	case RESULT_OUT_OF_MEMORY:
	case RESULT_OUT_OF_RESOURCES:
		return -ENOMEM;
	case U32_MAX:
		/* No device answers. */
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

/*
 * Performs a control command that ends something, which the device does once nothing of it runs. It gives up for nobody: what
 * is to end may be memory that the device still reaches.
 */
int accel_control_wait(struct accel *accel, u32 code, const u64 *args)
{
	int err;

	for (;;) {
		mutex_lock(&accel->lock);
		err = accel_control(accel, code, args, NULL);
		mutex_unlock(&accel->lock);
		if (err != -EAGAIN)
			return err;
		usleep_range(100, 1000);
	}
}

static ssize_t cache_size_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct pci_dev *pdev = to_pci_dev(dev);
	u16 dvsec = pci_find_dvsec_capability(pdev, CXL_VENDOR, CXL_DEVICE_DVSEC);
	u64 size;
	u16 value;

	pci_read_config_word(pdev, dvsec + CXL_CAPABILITY2, &value);
	size = FIELD_GET(CXL_CACHE_SIZE, value);
	switch (FIELD_GET(CXL_CACHE_UNIT, value)) {
	case 1:
		size *= SZ_64K;
		break;
	case 2:
		size *= SZ_1M;
		break;
	default:
		size = 0;
	}
	return sysfs_emit(buf, "%llu\n", size);
}
static DEVICE_ATTR_RO(cache_size);

static ssize_t memory_size_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct accel *accel = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%llu\n", accel->memory_bytes);
}
static DEVICE_ATTR_RO(memory_size);

static ssize_t memory_base_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct accel *accel = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%pa\n", &accel->memory);
}
static DEVICE_ATTR_ADMIN_RO(memory_base);

/* The protocol by which processors reach device memory: CXL.mem, or CXL.io where no decoder leads to all of it. */
static ssize_t memory_protocol_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct accel *accel = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%s\n", accel->memory_is_decoded ? "mem" : "io");
}
static DEVICE_ATTR_RO(memory_protocol);

/* Which of CXL.cache and CXL.mem are on. */
static ssize_t protocols_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct pci_dev *pdev = to_pci_dev(dev);
	u16 dvsec = pci_find_dvsec_capability(pdev, CXL_VENDOR, CXL_DEVICE_DVSEC);
	u16 value;

	pci_read_config_word(pdev, dvsec + CXL_CONTROL, &value);
	return sysfs_emit(buf, "io%s%s\n", value & CXL_CACHE_ENABLE ? " cache" : "",
			  value & CXL_MEM_ENABLE ? " mem" : "");
}
static DEVICE_ATTR_RO(protocols);

/* What host and device had to tell each other about lines of device memory: a counter a line. */
static ssize_t coherence_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	static const char *const names[] = { ACCEL_STATISTICS };
	struct accel *accel = dev_get_drvdata(dev);
	ssize_t bytes = 0;
	u64 counter;
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		mutex_lock(&accel->lock);
		err = accel_control(accel, CONTROL_COHERENCE_STATISTIC, (const u64[CONTROL_ARGS]){ i }, &counter);
		mutex_unlock(&accel->lock);
		if (err)
			return err == -EINVAL ? -EOPNOTSUPP : err;
		bytes += sysfs_emit_at(buf, bytes, "%s %llu\n", names[i], counter);
	}
	return bytes;
}
static DEVICE_ATTR_RO(coherence);

static struct attribute *accel_attrs[] = {
	&dev_attr_cache_size.attr,
	&dev_attr_coherence.attr,
	&dev_attr_memory_base.attr,
	&dev_attr_memory_protocol.attr,
	&dev_attr_memory_size.attr,
	&dev_attr_protocols.attr,
	NULL,
};
ATTRIBUTE_GROUPS(accel);

/* Turns CXL.cache and CXL.mem on. */
static int accel_enable_cxl(struct pci_dev *pdev)
{
	u16 dvsec = pci_find_dvsec_capability(pdev, CXL_VENDOR, CXL_DEVICE_DVSEC);
	u16 value;

	if (!dvsec)
		return dev_err_probe(&pdev->dev, -ENODEV, "no CXL device\n");
	pci_read_config_word(pdev, dvsec + CXL_CAPABILITY, &value);
	if (!(value & CXL_CACHE_CAPABLE) || !(value & CXL_MEM_CAPABLE))
		return dev_err_probe(&pdev->dev, -ENODEV, "no Type 2 device: it lacks CXL.cache or CXL.mem\n");
	pci_read_config_word(pdev, dvsec + CXL_CONTROL, &value);
	value |= CXL_CACHE_ENABLE | CXL_MEM_ENABLE;
	pci_write_config_word(pdev, dvsec + CXL_CONTROL, value);
	return 0;
}

/* Sees that this is the accelerator, and turns its rings on. */
static int accel_enable_rings(struct accel *accel)
{
	struct device *dev = &accel->pdev->dev;

	if (readl(accel->regs + REG_MAGIC) != MAGIC)
		return dev_err_probe(dev, -ENODEV, "the command window has another magic number\n");
	if (!(readl(accel->regs + REG_STATUS) & STATUS_READY))
		return dev_err_probe(dev, -ENODEV, "the device has no backend\n");
	if (readl(accel->regs + REG_VERSION_MAX) < VERSION_2)
		return dev_err_probe(dev, -EOPNOTSUPP, "the device has no rings\n");
	writel(VERSION_2, accel->regs + REG_VERSION_SELECT);
	if (readl(accel->regs + REG_VERSION_SELECT) != VERSION_2)
		return dev_err_probe(dev, -EIO, "the device does not turn its rings on\n");
	accel->queues = readl(accel->regs + REG_QUEUES);
	accel->max_depth = readl(accel->regs + REG_MAX_DEPTH);
	accel->memory_bytes = min_t(u64, readq(accel->regs + REG_TOTAL_MEM),
				    pci_resource_len(accel->pdev, MEMORY_BAR));
	return 0;
}

static void __iomem *accel_find_hdm(void __iomem *cm)
{
	u32 entries = FIELD_GET(CXL_CM_ENTRIES, readl(cm));
	u32 i, entry;

	for (i = 1; i <= entries; i++) {
		entry = readl(cm + 4 * i);
		if (FIELD_GET(CXL_CM_ID, entry) == CXL_CM_HDM)
			return cm + FIELD_GET(CXL_CM_POINTER, entry);
	}
	return NULL;
}

/* Device memory is where the firmware's decoder has it, if that has all of it; else behind its BAR. */
static int accel_find_memory(struct accel *accel)
{
	void __iomem *cm, *hdm;
	u32 control;

	accel->memory = pci_resource_start(accel->pdev, MEMORY_BAR);
	if (pci_resource_len(accel->pdev, COMPONENT_BAR) < CXL_CM + CXL_CM_SIZE)
		return 0;
	cm = ioremap(pci_resource_start(accel->pdev, COMPONENT_BAR) + CXL_CM, CXL_CM_SIZE);
	if (!cm)
		return -ENOMEM;
	hdm = accel_find_hdm(cm);
	if (!hdm || !(readl(hdm + HDM_GLOBAL_CONTROL) & HDM_ENABLE))
		goto unmap;
	control = readl(hdm + HDM_CONTROL);
	if (!(control & HDM_COMMITTED) || FIELD_GET(HDM_WAYS, control) || lo_hi_readq(hdm + HDM_SKIP) ||
	    lo_hi_readq(hdm + HDM_SIZE) < accel->memory_bytes)
		goto unmap;
	accel->memory = lo_hi_readq(hdm + HDM_BASE);
	accel->memory_is_decoded = true;
unmap:
	iounmap(cm);
	return 0;
}

static int accel_show_node(struct accel *accel)
{
	accel->number = ida_alloc(&accel_numbers, GFP_KERNEL);
	if (accel->number < 0)
		return accel->number;
	accel->misc.minor = MISC_DYNAMIC_MINOR;
	accel->misc.name = kasprintf(GFP_KERNEL, "cxl_gpu%d", accel->number);
	accel->misc.fops = &accel_fops;
	accel->misc.parent = &accel->pdev->dev;
	/* A session reaches nothing but its own, so the node is for everybody. */
	accel->misc.mode = 0666;
	if (!accel->misc.name)
		return -ENOMEM;
	return misc_register(&accel->misc);
}

static int accel_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct accel *accel;
	int err;

	err = pci_enable_device_mem(pdev);
	if (err)
		return err;
	if (!(pci_resource_flags(pdev, COMMAND_BAR) & IORESOURCE_MEM) ||
	    !(pci_resource_flags(pdev, MEMORY_BAR) & IORESOURCE_MEM))
		err = dev_err_probe(dev, -ENODEV, "a window is missing\n");
	else
		err = pci_request_regions(pdev, KBUILD_MODNAME);
	if (err)
		goto disable;
	err = accel_enable_cxl(pdev);
	if (err)
		goto release_regions;
	err = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (err)
		goto release_regions;

	accel = kzalloc(sizeof(*accel), GFP_KERNEL);
	err = -ENOMEM;
	if (!accel)
		goto release_regions;
	kref_init(&accel->ref);
	mutex_init(&accel->lock);
	INIT_LIST_HEAD(&accel->sessions);
	accel->pdev = pci_dev_get(pdev);
	accel->number = -1;
	accel->doorbells = pci_resource_start(pdev, COMMAND_BAR) + DOORBELLS;
	accel->regs = ioremap(pci_resource_start(pdev, COMMAND_BAR), REGISTERS_SIZE);
	if (!accel->regs)
		goto put;
	err = accel_enable_rings(accel);
	if (err)
		goto unmap;
	err = accel_find_memory(accel);
	if (err)
		goto unmap;
	pci_set_master(pdev);
	err = pci_alloc_irq_vectors(pdev, 1, VECTORS, PCI_IRQ_MSIX);
	if (err < 0)
		goto unmap;
	accel->vectors = err;
	pci_set_drvdata(pdev, accel);
	err = accel_show_node(accel);
	if (err)
		goto free_vectors;
	dev_info(dev, "%s: %llu MiB by CXL.%s\n", accel->misc.name, accel->memory_bytes >> 20,
		 accel->memory_is_decoded ? "mem" : "io");
	return 0;

free_vectors:
	pci_free_irq_vectors(pdev);
unmap:
	iounmap(accel->regs);
put:
	accel_put(accel);
release_regions:
	pci_release_regions(pdev);
disable:
	pci_disable_device(pdev);
	return err;
}

/* Sessions that are open end now; their files stay, and answer that the device is gone. */
static void accel_remove(struct pci_dev *pdev)
{
	struct accel *accel = pci_get_drvdata(pdev);

	misc_deregister(&accel->misc);
	accel_sessions_detach(accel);
	mutex_lock(&accel->lock);
	writel(VERSION_1, accel->regs + REG_VERSION_SELECT);
	accel->gone = true;
	mutex_unlock(&accel->lock);
	pci_free_irq_vectors(pdev);
	pci_clear_master(pdev);
	iounmap(accel->regs);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	accel_put(accel);
}

static const struct pci_device_id accel_ids[] = {
	{ PCI_DEVICE(ACCEL_VENDOR, ACCEL_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, accel_ids);

static struct pci_driver accel_driver = {
	.name = KBUILD_MODNAME,
	.id_table = accel_ids,
	.probe = accel_probe,
	.remove = accel_remove,
	.dev_groups = accel_groups,
};
module_pci_driver(accel_driver);

MODULE_DESCRIPTION("CXL Type 2 accelerator");
MODULE_LICENSE("GPL");
