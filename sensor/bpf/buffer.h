// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// How a record is written: into memory of this CPU, value by value, then into
// the ring buffer of its process.
#pragma once
#include "kernel.h"
#include "event.h"

// Settings that the loader gives before the programs start.
const volatile __u32 partitions = 1;  // a power of two
const volatile __u32 watermark = 0;   // bytes that wait before the reader is woken
const volatile __s32 cgroup_controller = -1; // whose hierarchy names the cgroup; -1 is the unified one
const volatile char cgroup_name[8] = "";      // of that controller
const volatile __u32 cgroup_name_size = 0;
const volatile bool with_environment = false;
const volatile __u32 process_namespace = 0; // whose ids processes have in records, by its inode; 0 is the first one, which has all processes

#define MAX_PARTITIONS 64
#define MAX_TYPES 128
#define MAX_CPUS 1024

struct header {
	__u32 size;
	__u16 type;
	__u8 version, flags;
	__u64 time, sequence;
	__s64 result;
	__u64 start, parent_start, cgroup;
	__u32 buffer, cpu, tgid, tid, parent, vpid, vtid, pgid, vpgid, sid;
	__u32 uid, gid, loginuid, tty, mnt, pidns, net, userns;
	char comm[16];
};

enum { HAS_RESULT = 1, OF_NODE = 2, TRUNCATED = 1, VALUE_HEAD = 4 };

// Tags of extras, as in package record.
enum tag {
	tag_path = 64, tag_base, tag_second_base, tag_fd, tag_stdin, tag_stdout, tag_stderr, tag_file_state, tag_device, tag_address,
	tag_enforced,
};

// RECORD_LIMIT is where the last value may begin; after it there is room for one
// value of any size.
#define RECORD_LIMIT 28000
#define VALUE_MAX 4096

struct scratch {
	__u32 size; // bytes of the record so far
	__u32 exe_flags; // of an exec, for guards
	__u32 cut;  // values that were cut or left out
	__u32 padding;
	__u64 args[8];
	struct header header;
	char rest[RECORD_LIMIT + 2 * VALUE_MAX];
	char path[PATH_MAX + 256];
	// Kept here, not in variables, so that the verifier sees the same at each turn
	// of a loop.
	__u32 path_at; // where the path begins, which is written from its end
	__u32 last_word; // of a path that was given, the last one with slashes
	__u64 last_slashes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

// Counters of one CPU.
struct counters {
	__u64 made[MAX_TYPES];      // records for a buffer, dropped ones included
	__u64 dropped[MAX_TYPES];   // because the buffer was full
	__u64 truncated[MAX_TYPES]; // records with a value that was cut
	__u64 filtered_opens, filtered_connects;
	__u64 foreign_calls; // of programs of another architecture, not covered
	__u64 outside; // of processes that are not in the namespace
	__u64 killed, would_kill, denied; // by guards, dry runs
	__u64 denied_unmarked; // of these, those whose records do not say so, for want of room
	__u64 sequences[2 * MAX_PARTITIONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2 * MAX_PARTITIONS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

static __always_inline struct counters *count(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct scratch *scratch_of_cpu(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(&scratch, &cpu);
}

// The functions that are not static are checked once by the kernel, not wherever
// they are called. They return 0 because such functions return numbers.

// put returns where the bytes of the next value go, and writes its head later.
static __always_inline char *put(struct scratch *s)
{
	__u32 at = s->size;
	if (at > RECORD_LIMIT) {
		s->cut++;
		return 0;
	}
	return s->rest + at;
}

static __always_inline void put_head(struct scratch *s, char *value, __u32 tag, __u32 size, bool cut)
{
	if (cut)
		s->cut++;
	*(__u32 *)value = tag | (cut ? TRUNCATED << 8 : 0) | size << 16;
	s->size += VALUE_HEAD + size;
}

static __always_inline void put_int(struct scratch *s, __u32 tag, __s64 n)
{
	char *value = put(s);
	if (!value)
		return;
	*(__u64 *)(value + VALUE_HEAD) = n;
	put_head(s, value, tag, 8, false);
}

// put_user_text writes a text of the process; what cannot be read is missing.
__noinline int put_user_text(struct scratch *s, __u32 tag, __u64 address)
{
	if (!s)
		return 0;
	char *value = put(s);
	if (!value || !address)
		return 0;
	long n = bpf_probe_read_user_str(value + VALUE_HEAD, PATH_MAX, (void *)address);
	if (n > 0)
		put_head(s, value, tag, (n - 1) & (2 * PATH_MAX - 1), n == PATH_MAX);
	return 0;
}

// put_user_bytes writes at most max (a power of two) bytes of the process.
static __always_inline void put_user_bytes(struct scratch *s, __u32 tag, __u64 address, __u64 size, const __u32 max)
{
	char *value = put(s);
	__u32 n = size > max ? max : size;
	barrier_var(n); // the verifier needs the test that the compiler would leave out
	if (!value || !address || n > max)
		return;
	if (!bpf_probe_read_user(value + VALUE_HEAD, n, (void *)address))
		put_head(s, value, tag, n, size > max);
}

static __always_inline void put_kernel_text(struct scratch *s, __u32 tag, const void *address)
{
	char *value = put(s);
	if (!value)
		return;
	long n = bpf_probe_read_kernel_str(value + VALUE_HEAD, PATH_MAX, address);
	if (n > 0)
		put_head(s, value, tag, (n - 1) & (2 * PATH_MAX - 1), n == PATH_MAX);
}

static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroup_subsys_state *css = 0;
	struct cgroup *group = 0;
	if (cgroup_controller < 0) {
		bpf_core_read(&group, sizeof(group), &set->dfl_cgrp);
		return group;
	}
	bpf_core_read(&css, sizeof(css), &set->subsys[cgroup_controller & 15]);
	bpf_core_read(&group, sizeof(group), &css->cgroup);
	return group;
}

static __always_inline __u32 number_in(struct pid *pid, __u32 level)
{
	struct upid number = {};
	bpf_core_read(&number.nr, sizeof(number.nr), &pid->numbers[level & 63].nr);
	return number.nr;
}

static __always_inline struct pid_namespace *namespace_of(struct task_struct *task)
{
	struct pid *self = task->thread_pid;
	struct pid_namespace *ns = 0;
	__u32 level = self->level & 63;
	bpf_core_read(&ns, sizeof(ns), &self->numbers[level].ns);
	return ns;
}

// number_at returns the id that a process has in the namespace, which lies at a
// level; 0 if it has none there.
static __always_inline __u32 number_at(struct pid *pid, __u32 level)
{
	struct upid id = {};
	if (level > BPF_CORE_READ(pid, level))
		return 0;
	bpf_core_read(&id.ns, sizeof(id.ns), &pid->numbers[level & 63].ns);
	return BPF_CORE_READ(id.ns, ns.inum) == process_namespace ? number_in(pid, level) : 0;
}

#define LEVELS 32 // of namespaces below the first one; the kernel has no more

// put_ids_of_namespace fills the ids of a process and of its parent by a
// namespace that is not the first one; it returns 0 if the process is not in it.
__noinline int put_ids_of_namespace(struct scratch *s, __u64 thread_pid, __u64 of_process, __u64 of_parent)
{
	struct pid *self = (void *)thread_pid;
	struct signal_struct *signal = (void *)of_process, *parent = (void *)of_parent;
	if (!s)
		return 0;
	struct header *h = &s->header;
	for (__u32 level = 1; level <= LEVELS; level++) {
		h->tid = number_at(self, level);
		if (!h->tid)
			continue;
		h->tgid = number_at(BPF_CORE_READ(signal, pids[PIDTYPE_TGID]), level);
		h->pgid = number_at(BPF_CORE_READ(signal, pids[PIDTYPE_PGID]), level);
		h->sid = number_at(BPF_CORE_READ(signal, pids[PIDTYPE_SID]), level);
		h->parent = number_at(BPF_CORE_READ(parent, pids[PIDTYPE_TGID]), level);
		return 1;
	}
	return 0;
}

// put_ids fills what the header says of process and thread ids. It returns false
// if the process is not in the namespace.
static __always_inline bool put_ids(struct scratch *s, struct task_struct *task)
{
	struct header *h = &s->header;
	struct signal_struct *signal = task->signal;
	struct pid *self = task->thread_pid;
	struct pid *leader = signal->pids[PIDTYPE_TGID], *group = signal->pids[PIDTYPE_PGID], *session = signal->pids[PIDTYPE_SID];
	__u32 level = self->level;

	if (process_namespace) {
		if (!put_ids_of_namespace(s, (__u64)BPF_CORE_READ(task, thread_pid), (__u64)BPF_CORE_READ(task, signal), (__u64)BPF_CORE_READ(task, real_parent, signal)))
			return false;
	} else {
		h->tgid = task->tgid;
		h->tid = task->pid;
		h->parent = task->real_parent->tgid;
		h->pgid = number_in(group, 0);
		h->sid = number_in(session, 0);
	}
	if (!level) {
		h->vpid = h->tgid;
		h->vtid = h->tid;
		h->vpgid = h->pgid;
		return true;
	}
	h->vtid = number_in(self, level);
	h->vpid = number_in(leader, level);
	h->vpgid = group->level >= level ? number_in(group, level) : 0;
	return true;
}

// What the loader gives if programs may kill.
const volatile bool with_enforcement = false;
const volatile bool with_denials = false;
const volatile __u32 own_process = 0; // the reader, which is never killed
const volatile __u32 node_mounts = 0; // the node's mount namespace; 0 if it is not known
const volatile __u32 node_root_device = 0; // the kernel's number of it
const volatile __u64 node_root_inode = 0;

// is_of_node says whether a process sees the files of the node, or runs a program
// of the node (by the mount that this is on), as a runtime does that is in the
// cgroup of a container already.
static __always_inline bool is_of_node(struct task_struct *task, __u32 mounts, struct vfsmount *mnt)
{
	struct dentry *root = BPF_CORE_READ(task, fs, root.dentry);
	if (!node_mounts)
		return false;
	if (mounts == node_mounts)
		return true;
	if (BPF_CORE_READ(root, d_sb, s_dev) == node_root_device && BPF_CORE_READ(root, d_inode, i_ino) == node_root_inode)
		return true;
	if (!mnt)
		return false;
	struct mount *m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
	return BPF_CORE_READ(m, mnt_ns, ns.inum) == node_mounts;
}

static __always_inline __u32 terminal(struct signal_struct *signal)
{
	struct tty_struct *tty = signal->tty;
	if (!tty)
		return 0;
	struct tty_driver *driver = tty->driver;
	__u32 minor = driver->minor_start + tty->index;
	return (minor & 0xff) | driver->major << 8 | (minor & ~0xffU) << 12;
}

// start begins a record about a task; it returns 0 if it is to have none.
static __always_inline struct scratch *start(struct task_struct *task, __u16 type)
{
	struct scratch *s = scratch_of_cpu();
	if (!s)
		return 0;
	struct header *h = &s->header;
	struct task_struct *parent = task->real_parent;
	const struct cred *cred = task->cred;
	struct nsproxy *namespaces = task->nsproxy;

	if (!put_ids(s, task)) {
		struct counters *c = count();
		if (c)
			c->outside++;
		return 0;
	}
	s->size = s->cut = s->exe_flags = 0;
	h->type = type;
	h->version = 1;
	h->flags = 0;
	h->result = 0;
	h->time = bpf_ktime_get_boot_ns();
	h->cpu = bpf_get_smp_processor_id();
	h->start = task->group_leader->start_boottime;
	h->parent_start = process_namespace && !h->parent ? 0 : parent->group_leader->start_boottime;
	h->cgroup = BPF_CORE_READ(cgroup_of(task), kn, id);
	h->uid = cred->euid.val;
	h->gid = cred->egid.val;
	h->userns = cred->user_ns->ns.inum;
	h->loginuid = bpf_core_field_exists(task->loginuid) ? task->loginuid.val : -1;
	h->tty = terminal(task->signal);
	h->mnt = namespaces->mnt_ns->ns.inum;
	h->net = namespaces->net_ns->ns.inum;
	h->pidns = BPF_CORE_READ(namespace_of(task), ns.inum);
	__builtin_memcpy(h->comm, task->comm, sizeof(h->comm));
	if (with_enforcement && is_of_node(task, h->mnt, BPF_CORE_READ(task, mm, exe_file, f_path.mnt)))
		h->flags |= OF_NODE;
	return s;
}

static __always_inline void set_result(struct scratch *s, __s64 result)
{
	s->header.flags |= HAS_RESULT;
	s->header.result = result;
}

static __always_inline bool is_lifecycle(__u16 type)
{
	return type >= event_execve && type <= event_procexit;
}


enum { WOULD_KILL = 1, KILL = 2, DENY = 3, SIGKILL = 9 };

struct guard {
	__u64 cgroup;
	__u32 type;
	__u32 padding;
};

struct order {
	__u32 exe_flags; // of an exec: any of these; 0 for every one
	__u32 action;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard);
	__type(value, struct order);
} guards SEC(".maps");

// enforce kills the process that made a call which a guard of its cgroup is
// about, before it runs any further.
static __always_inline void enforce(struct scratch *s, struct counters *c)
{
	struct header *h = &s->header;
	if (!with_enforcement || h->result < 0 || h->tgid == own_process || h->tgid == 1)
		return;
	if (h->flags & OF_NODE)
		return;
	if (h->type >= event_clone && h->type <= event_procexit)
		return;
	struct guard g = {.cgroup = h->cgroup, .type = h->type};
	struct order *o = bpf_map_lookup_elem(&guards, &g);
	if (!o || (o->exe_flags && !(o->exe_flags & s->exe_flags)))
		return;
	long outcome = o->action;
	if (outcome == KILL || outcome == DENY) { // what should have been denied, and was not
		outcome = KILL;
		long failure = bpf_send_signal(SIGKILL);
		if (failure)
			outcome = failure;
		else
			c->killed++;
	} else {
		c->would_kill++;
	}
	put_int(s, tag_enforced, outcome);
}

// Types that the reader is woken for at once: bit n of the words is type n. The
// loader may change it while programs run.
volatile __u64 urgent_types[MAX_TYPES / 64] = {};

static __always_inline bool is_urgent(__u32 type)
{
	return urgent_types[type >> 6 & (MAX_TYPES / 64 - 1)] & 1ULL << (type & 63);
}

// submit hands a record to the ring buffer of its process, or counts it as
// dropped.
static __always_inline int submit(struct scratch *s)
{
	struct header *h = &s->header;
	struct counters *c = count();
	if (!c)
		return 0;
	enforce(s, c);
	__u32 buffer = (h->tgid * 2654435761U >> 16) & (partitions - 1);
	if (is_lifecycle(h->type))
		buffer += partitions;
	__u32 type = h->type & (MAX_TYPES - 1);
	c->made[type]++;
	if (s->cut)
		c->truncated[type]++;
	h->buffer = buffer;
	h->sequence = ++c->sequences[buffer & (2 * MAX_PARTITIONS - 1)];
	__u32 size = s->size;
	if (size > RECORD_LIMIT + VALUE_MAX)
		size = RECORD_LIMIT + VALUE_MAX;
	size += sizeof(*h);
	h->size = size;

	void *ring = bpf_map_lookup_elem(&rings, &buffer);
	if (!ring) {
		c->dropped[type]++;
		return 0;
	}
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	bool wake = waiting >= watermark || is_urgent(type);
	if (bpf_ringbuf_output(ring, h, size, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		c->dropped[type]++;
	return 0;
}
