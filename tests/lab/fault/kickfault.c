// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on the path that creates memory cgroups, for kickwatch's laboratory only: it refuses to load unless the DMI
 * product name is "kickwatch-laboratory", or where there is no DMI, unless the device tree is that of QEMU's board and the
 * command line has "kickfault.machine=kickwatch-laboratory".
 *
 * mem_cgroup_css_online() runs once for each new memory cgroup, in the task that creates it. This module replaces it by
 * a function that triggers the faults and then calls the original. So stacks look like those of a kernel with the fault
 * and contain no probe. Each fault has a parameter, its number per memory cgroup, which is 0 (off) at first:
 *
 *	kick	kick_all_cpus_sync() in the task that creates
 *	worker	the same from a worker, a moment later: no stack shows the cause
 *	caches	kmem caches created in the task and destroyed by workers, as each memory cgroup had them until
 *		"mm: memcg/slab: use a single set of kmem_caches for all accounted allocations" (5.9): all under
 *		slab_mutex, so they wait for each other
 *	key	a static key turned on and off again in the task: kernel text is patched twice
 */
#include <linux/atomic.h>
#include <linux/cgroup.h>
#include <linux/dmi.h>
#include <linux/ftrace.h>
#include <linux/jump_label.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#define HOOKED "mem_cgroup_css_online"
#define PRODUCT "kickwatch-laboratory"

static unsigned int kick, worker, caches, key;
module_param(kick, uint, 0644);
module_param(worker, uint, 0644);
module_param(caches, uint, 0644);
module_param(key, uint, 0644);

/* Counters of the faults, for the laboratory to compare with what kickwatch observes. */
static atomic_t memcgs, kicked, kicked_by_worker, caches_made, keys_flipped;

static int read_count(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(param->arg));
}

static const struct kernel_param_ops count_ops = { .get = read_count };
module_param_cb(memcgs, &count_ops, &memcgs, 0444);
module_param_cb(kicked, &count_ops, &kicked, 0444);
module_param_cb(kicked_by_worker, &count_ops, &kicked_by_worker, 0444);
module_param_cb(caches_made, &count_ops, &caches_made, 0444);
module_param_cb(keys_flipped, &count_ops, &keys_flipped, 0444);

struct doomed {
	struct work_struct work;
	struct kmem_cache *cache;
};

static atomic_t kicks_wanted;
static struct workqueue_struct *workers;
static int (*original)(struct cgroup_subsys_state *css);

/* By 6.12 kick_all_cpus_sync() has no user on x86 and may be removed; this is a copy of it. */
#ifdef KICKFAULT_OWN_KICK
static void do_nothing(void *unused)
{
}

static void kick_all(void)
{
	smp_mb();
	smp_call_function(do_nothing, NULL, 1);
}
#else
#define kick_all kick_all_cpus_sync
#endif

static noinline void kickfault_work(struct work_struct *work)
{
	while (atomic_add_unless(&kicks_wanted, -1, 0)) {
		kick_all();
		atomic_inc(&kicked_by_worker);
	}
}

static DECLARE_WORK(kick_work, kickfault_work);

/* One work item for each cache, so that as many workers contend for slab_mutex. */
static noinline void kickfault_destroy_cache(struct work_struct *work)
{
	struct doomed *doomed = container_of(work, struct doomed, work);

	kmem_cache_destroy(doomed->cache);
	kfree(doomed);
}

static void noop_ctor(void *object)
{
}

/* A constructor prevents merging with another cache of that size, without flags whose names change. */
static noinline void make_cache(void)
{
	struct doomed *doomed = kmalloc(sizeof(*doomed), GFP_KERNEL);
	char name[32];
	void *object;

	if (!doomed)
		return;
	snprintf(name, sizeof(name), "kickfault-%d", atomic_inc_return(&caches_made));
	doomed->cache = kmem_cache_create(name, 192, 0, 0, noop_ctor);
	if (!doomed->cache) {
		kfree(doomed);
		return;
	}
	/* This leaves a slab on this CPU, which is flushed under slab_mutex when the cache is destroyed. */
	object = kmem_cache_alloc(doomed->cache, GFP_KERNEL);
	if (object)
		kmem_cache_free(doomed->cache, object);
	INIT_WORK(&doomed->work, kickfault_destroy_cache);
	queue_work(workers, &doomed->work);
}

static DEFINE_STATIC_KEY_FALSE(faulty_key);
static int flipped_side;

static noinline void flip_key(void)
{
	static_branch_enable(&faulty_key);
	if (static_branch_unlikely(&faulty_key))	/* the instruction that is patched */
		flipped_side++;
	static_branch_disable(&faulty_key);
	atomic_inc(&keys_flipped);
}

static noinline int kickfault_css_online(struct cgroup_subsys_state *css)
{
	unsigned int times;

	atomic_inc(&memcgs);
	for (times = READ_ONCE(kick); times; times--) {
		kick_all();
		atomic_inc(&kicked);
	}
	times = READ_ONCE(worker);
	if (times) {
		atomic_add(times, &kicks_wanted);
		queue_work(workers, &kick_work);
	}
	for (times = READ_ONCE(caches); times; times--)
		make_cache();
	for (times = READ_ONCE(key); times; times--)
		flip_key();
	return original(css);
}

/*
 * Before 5.11 callbacks receive pt_regs, which are NULL unless all registers are saved, and recursion protection is the
 * default.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define FTRACE_OPS_FL_RECURSION 0
#define REGISTERS_WANTED FTRACE_OPS_FL_SAVE_REGS
#define ftrace_regs pt_regs
#define set_instruction_pointer instruction_pointer_set
/* arm64 until "ftrace: arm64: move from REGS to ARGS" (6.2): only all registers, and the setters do nothing. */
#elif defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS) && !defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS)
#define REGISTERS_WANTED FTRACE_OPS_FL_SAVE_REGS
#define set_instruction_pointer(fregs, ip) instruction_pointer_set(ftrace_get_regs(fregs), ip)
/* "ftrace: Rename ftrace_instruction_pointer_set() ..." (6.3) */
#elif defined(ftrace_instruction_pointer_set)
#define set_instruction_pointer ftrace_instruction_pointer_set
#else
#define set_instruction_pointer ftrace_regs_set_instruction_pointer
#endif
#ifndef REGISTERS_WANTED
#define REGISTERS_WANTED FTRACE_OPS_FL_SAVE_REGS_IF_SUPPORTED
#endif

static void notrace redirect(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	if (!within_module(parent_ip, THIS_MODULE))	/* not this module's call of the original */
		set_instruction_pointer(fregs, (unsigned long)kickfault_css_online);
}

static struct ftrace_ops hook = {
	.func = redirect,
	.flags = REGISTERS_WANTED | FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_RECURSION,
};

/* kallsyms_lookup_name() is not exported since 5.7; a temporary kprobe gives the address as well. */
static void *address_of(const char *name)
{
	struct kprobe probe = { .symbol_name = name };
	void *address;

	if (register_kprobe(&probe))
		return NULL;
	address = probe.addr;
	unregister_kprobe(&probe);
	return address;
}

/* A kernel that QEMU boots directly on arm64 has a device tree instead of DMI. */
static bool in_laboratory(void)
{
	struct device_node *chosen;
	const char *words;
	bool named;

	if (dmi_match(DMI_PRODUCT_NAME, PRODUCT))
		return true;
	chosen = of_find_node_by_path("/chosen");	/* 5.10 does not export of_chosen */
	named = of_machine_is_compatible("linux,dummy-virt") && !of_property_read_string(chosen, "bootargs", &words) &&
		strstr(words, "kickfault.machine=" PRODUCT);
	of_node_put(chosen);
	return named;
}

static int __init kickfault_init(void)
{
	int error;

	if (!in_laboratory()) {
		pr_err("kickfault: this machine is not " PRODUCT "\n");
		return -EPERM;
	}
	original = address_of(HOOKED);
	if (!original) {
		pr_err("kickfault: no " HOOKED "\n");
		return -ENOENT;
	}
	workers = alloc_workqueue("kickfault", WQ_UNBOUND, 0);
	if (!workers)
		return -ENOMEM;
	error = ftrace_set_filter(&hook, (unsigned char *)HOOKED, strlen(HOOKED), 1);
	if (!error)
		error = register_ftrace_function(&hook);
	if (error)
		destroy_workqueue(workers);
	return error;
}

static void __exit kickfault_exit(void)
{
	unregister_ftrace_function(&hook);
	ftrace_set_filter(&hook, NULL, 0, 1);
	synchronize_rcu_tasks();	/* wait until all redirected tasks have left */
	destroy_workqueue(workers);
}

module_init(kickfault_init);
module_exit(kickfault_exit);
MODULE_DESCRIPTION("Faults on the path that creates memory cgroups, for kickwatch's laboratory");
MODULE_LICENSE("GPL");
