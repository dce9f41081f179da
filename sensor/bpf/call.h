// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Programs about system calls that have returned. The loader puts one for each
// wanted call into a table; most calls need no code of their own, only a
// description of what their arguments are.
#pragma once
#include "process.h"
#include "filter.h"

#define MAX_CALLS 512

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

// Where a value comes from.
enum source { FROM_RESULT, FROM_INT, FROM_LONG, FROM_LOW_BITS, FROM_HIGH_BITS, FROM_TEXT, FROM_PATH };

enum { NO_ARGUMENT = 255, RESULT_FD = 6 };
enum { ONLY_FAILURES = 1, WITH_DIRECTORY = 2 };

struct value {
	__u8 tag, source, argument;
	__u8 dirfd; // of a path: the argument that holds its base, or NO_ARGUMENT
};

struct call {
	__u16 type;
	__u8 count, flags;
	__u8 fd; // the argument that is a descriptor, RESULT_FD or NO_ARGUMENT
	__u8 padding[3];
	struct value values[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline void read_arguments(struct scratch *s, struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	s->args[0] = regs->di;
	s->args[1] = regs->si;
	s->args[2] = regs->dx;
	s->args[3] = regs->r10;
	s->args[4] = regs->r8;
	s->args[5] = regs->r9;
#else
	s->args[0] = regs->orig_x0;
	s->args[1] = regs->regs[1];
	s->args[2] = regs->regs[2];
	s->args[3] = regs->regs[3];
	s->args[4] = regs->regs[4];
	s->args[5] = regs->regs[5];
#endif
}

#define COMPAT_X86 2           // TS_COMPAT
#define COMPAT_ARM64 (1 << 22) // TIF_32BIT
#define X32_CALL 0x40000000

// is_foreign reports whether the call is of another architecture (32-bit
// programs): its number and arguments mean something else.
static __always_inline bool is_foreign(struct task_struct *task, struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return task->thread_info.status & COMPAT_X86 || (regs->orig_ax & X32_CALL && (__s64)regs->orig_ax > 0);
#else
	return task->thread_info.flags & COMPAT_ARM64;
#endif
}

// The numbers of wanted calls: bit n of the words is number n. Those that 32-bit
// programs have for wanted calls are among them, so that these are counted.
volatile __u64 watched_calls[MAX_CALLS / 64] = {};

// Calls whose opens for reading the dispatcher judges itself; -1 where they are
// not wanted. A tail call costs as much as looking at the path.
volatile __s32 judged_open = -1, judged_openat = -1;

// is_unwanted_open says whether a call is an open for reading that no filter lets
// pass. What it does not know, and what needs more than a quick look, it leaves
// to call_open.
static __always_inline bool is_unwanted_open(struct task_struct *task, struct pt_regs *regs, long result, __s32 nr)
{
	__u64 name, flags;
	__s32 dirfd = AT_FDCWD;
	if (nr < 0 || open_reads == READS_ALL)
		return false;
#if defined(__TARGET_ARCH_x86)
	if (nr == judged_openat) {
		dirfd = regs->di;
		name = regs->si;
		flags = regs->dx;
	} else if (nr == judged_open) {
		name = regs->di;
		flags = regs->si;
	} else {
		return false;
	}
#else
	if (nr != judged_openat)
		return false;
	dirfd = regs->orig_x0;
	name = regs->regs[1];
	flags = regs->regs[2];
#endif
	if (flags & (O_ACCMODE | O_CREAT | O_TRUNC))
		return false;
	if (open_reads == READS_NONE)
		return true;
	return is_surely_unwanted(task, result >= 0 ? file_of(task, result) : 0, name, dirfd);
}

// call_exit runs for every call of the machine. Most are not wanted: it says so
// by memory alone, since to call a function costs as much as all that is before.
SEC("tp_btf/sys_exit")
int BPF_PROG(call_exit, struct pt_regs *regs, long result)
{
#if defined(__TARGET_ARCH_x86)
	__s64 nr = regs->orig_ax;
#else
	__s64 nr = regs->syscallno;
#endif
	if ((__u64)nr < MAX_CALLS && !(watched_calls[nr >> 6 & (MAX_CALLS / 64 - 1)] & 1ULL << (nr & 63)))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	if (is_foreign(task, regs)) {
		struct counters *c = count();
		if (c)
			c->foreign_calls++;
		return 0;
	}
	if (is_unwanted_open(task, regs, result, nr)) {
		struct counters *c = count();
		if (c)
			c->filtered_opens++;
		return 0;
	}
	bpf_tail_call(ctx, &programs, nr);
	return 0;
}

static __always_inline struct call *call_of(struct pt_regs *regs)
{
	__u32 nr = syscall_number(regs);
	return bpf_map_lookup_elem(&calls, &nr);
}

// start_call begins the record of a call.
static __always_inline struct scratch *start_call(struct pt_regs *regs, long result, __u16 type)
{
	struct scratch *s = start(bpf_get_current_task_btf(), type);
	if (!s)
		return 0;
	set_result(s, result);
	read_arguments(s, regs);
	return s;
}

// put_value writes one value as the description says.
static __always_inline void put_value(struct scratch *s, struct value *v, __u32 base_tag)
{
	__u64 argument = s->args[v->argument & 7];
	switch (v->source) {
	case FROM_RESULT:
		put_int(s, v->tag, s->header.result);
		break;
	case FROM_INT:
		put_int(s, v->tag, (__s32)argument);
		break;
	case FROM_LONG:
		put_int(s, v->tag, argument);
		break;
	case FROM_LOW_BITS:
		put_int(s, v->tag, argument & 15);
		break;
	case FROM_HIGH_BITS:
		put_int(s, v->tag, (__s32)argument & ~15);
		break;
	case FROM_TEXT:
		put_user_text(s, v->tag, argument);
		break;
	case FROM_PATH:
		put_user_path(s, v->tag, argument, v->dirfd == NO_ARGUMENT ? AT_FDCWD : s->args[v->dirfd & 7], base_tag);
		break;
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_any, struct pt_regs *regs, long result)
{
	struct call *c = call_of(regs);
	if (!c || (c->flags & ONLY_FAILURES && result >= 0))
		return 0;
	struct scratch *s = start_call(regs, result, c->type);
	if (!s)
		return 0;
	__u32 base = tag_base;
	for (int i = 0; i < 8; i++) {
		if (i >= c->count)
			break;
		put_value(s, &c->values[i], base);
		if (c->values[i].source == FROM_PATH)
			base = tag_second_base;
	}
	if (c->fd != NO_ARGUMENT)
		put_file(s, tag_fd, c->fd == RESULT_FD ? result : s->args[c->fd & 7]);
	if (c->flags & WITH_DIRECTORY && result >= 0)
		put_cwd(s, tag_path, bpf_get_current_task_btf());
	if (with_denials && (c->type == event_execve || c->type == event_execveat))
		put_denial(s);
	return submit(s);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_capset, struct pt_regs *regs, long result)
{
	struct scratch *s = start_call(regs, result, event_capset);
	if (!s)
		return 0;
	put_int(s, 0, result);
	put_capabilities(s, bpf_get_current_task_btf(), 1);
	return submit(s);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_prctl, struct pt_regs *regs, long result)
{
	struct scratch *s = start_call(regs, result, event_prctl);
	if (!s)
		return 0;
	put_int(s, 0, result);
	put_int(s, 1, (__s32)s->args[0]);
	if (s->args[0] == PR_SET_NAME)
		put_user_text(s, 2, s->args[1]);
	else
		put_int(s, 3, s->args[1]);
	return submit(s);
}

// An opening is what the calls of the open family have in common.
struct opening {
	__u64 name;
	__u64 flags, mode, resolve;
	__s32 dirfd;
};

static __always_inline void read_opening(struct opening *o, struct pt_regs *regs, __u16 type)
{
	struct scratch *s = scratch_of_cpu();
	if (!s)
		return;
	read_arguments(s, regs);
	o->dirfd = AT_FDCWD;
	switch (type) {
	case event_open:
		o->name = s->args[0];
		o->flags = s->args[1];
		o->mode = s->args[2];
		break;
	case event_creat:
		o->name = s->args[0];
		o->flags = O_CREAT | O_TRUNC | 1;
		o->mode = s->args[1];
		break;
	case event_openat:
		o->dirfd = s->args[0];
		o->name = s->args[1];
		o->flags = s->args[2];
		o->mode = s->args[3];
		break;
	case event_openat2: {
		struct open_how how = {};
		o->dirfd = s->args[0];
		o->name = s->args[1];
		bpf_probe_read_user(&how, sizeof(how), (void *)s->args[2]);
		o->flags = how.flags;
		o->mode = how.mode;
		o->resolve = how.resolve;
		break;
	}
	case event_open_by_handle_at:
		o->dirfd = s->args[0];
		o->flags = s->args[2];
		break;
	}
	o->flags &= 0xffffffff;
	if (!(o->flags & O_CREAT))
		o->mode = 0;
}

// put_opening writes the parameters of a call, which are the same but for their
// places.
static __always_inline void put_opening(struct scratch *s, struct opening *o, __u16 type, long result)
{
	__u32 at = 0;
	put_int(s, at++, result);
	switch (type) {
	case event_creat:
		put_user_path(s, 1, o->name, o->dirfd, tag_base);
		put_int(s, 2, o->mode);
		return;
	case event_open_by_handle_at:
		put_int(s, 1, o->dirfd);
		put_int(s, 2, o->flags);
		return;
	case event_openat:
	case event_openat2:
		put_int(s, at++, o->dirfd);
	}
	put_user_path(s, at, o->name, o->dirfd, tag_base);
	put_int(s, at + 1, o->flags);
	put_int(s, at + 2, o->mode);
	if (type == event_openat2)
		put_int(s, at + 3, o->resolve);
}

static __always_inline __u32 device_place(__u16 type)
{
	switch (type) {
	case event_creat:
		return 3;
	case event_openat:
		return 5;
	case event_openat2:
		return 6;
	}
	return 4;
}

static __always_inline void put_opened(struct scratch *s, struct file *f, __u16 type)
{
	struct inode *inode = BPF_CORE_READ(f, f_inode);
	__u32 state = layer(inode);
	if (BPF_CORE_READ(f, f_mode) & FMODE_CREATED)
		state |= CREATED;
	put_int(s, device_place(type), device(inode));
	put_int(s, device_place(type) + 1, BPF_CORE_READ(inode, i_ino));
	put_int(s, tag_file_state, state);
	put_file_path(s, type == event_open_by_handle_at ? 3 : tag_path, f);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_open, struct pt_regs *regs, long result)
{
	struct call *c = call_of(regs);
	struct opening o = {};
	struct file *f = 0;
	if (!c)
		return 0;
	__u16 type = c->type;
	read_opening(&o, regs, type);
	if (result >= 0)
		f = file_of(bpf_get_current_task_btf(), result);
	if (open_reads != READS_ALL && !(o.flags & (O_ACCMODE | O_CREAT | O_TRUNC)) && type != event_open_by_handle_at) {
		struct scratch *s = scratch_of_cpu();
		int verdict = DROP;
		if (!s)
			return 0;
		if (open_reads == READS_WATCHED)
			verdict = judge_open(s, untyped(s, f), o.name, o.dirfd);
		if (verdict == DROP) {
			struct counters *counters = count();
			if (counters)
				counters->filtered_opens++;
			return 0;
		}
	}
	struct scratch *s = start_call(regs, result, type);
	if (!s)
		return 0;
	put_opening(s, &o, type, result);
	if (f)
		put_opened(s, f, type);
	return submit(s);
}

// DATA_MAX is how much of what is sent and received a record has.
#define DATA_MAX 80

static __always_inline void put_address(struct scratch *s, __u32 tag, __u64 address, __u64 size)
{
	if (size >= 2)
		put_user_bytes(s, tag, address, size, 128);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_connect, struct pt_regs *regs, long result)
{
	struct scratch *s = scratch_of_cpu();
	__u16 family = 0;
	if (!s)
		return 0;
	read_arguments(s, regs);
	if (!bpf_probe_read_user(&family, sizeof(family), (void *)s->args[1]) && family < 64 && !(connect_families & 1ULL << family)) {
		struct counters *c = count();
		if (c)
			c->filtered_connects++;
		return 0;
	}
	s = start_call(regs, result, event_connect);
	if (!s)
		return 0;
	put_int(s, 0, result);
	put_tuple(s, 1, s->args[0], s->args[1], s->args[2]);
	put_int(s, 2, (__s32)s->args[0]);
	put_address(s, 3, s->args[1], s->args[2]);
	put_file(s, tag_fd, s->args[0]);
	return submit(s);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_bind, struct pt_regs *regs, long result)
{
	struct scratch *s = start_call(regs, result, event_bind);
	if (!s)
		return 0;
	put_int(s, 0, result);
	put_address(s, 1, s->args[1], s->args[2]);
	put_int(s, 2, (__s32)s->args[0]);
	put_file(s, tag_fd, s->args[0]);
	return submit(s);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_accept, struct pt_regs *regs, long result)
{
	struct call *c = call_of(regs);
	if (!c)
		return 0;
	struct scratch *s = start_call(regs, result, c->type);
	if (!s)
		return 0;
	put_int(s, 0, result);
	if (result >= 0)
		put_tuple(s, 1, result, 0, 0);
	struct socket *listening = socket_of(file_of(bpf_get_current_task_btf(), s->args[0]));
	if (listening) {
		struct sock *sk = BPF_CORE_READ(listening, sk);
		__u32 waiting = BPF_CORE_READ(sk, sk_ack_backlog), most = BPF_CORE_READ(sk, sk_max_ack_backlog);
		put_int(s, 2, most ? (__u64)waiting * 100 / most : 0);
		put_int(s, 3, waiting);
		put_int(s, 4, most);
	}
	if (c->type == event_accept4)
		put_int(s, 5, (__s32)s->args[3]);
	if (result >= 0)
		put_file(s, tag_fd, result);
	return submit(s);
}

// A transfer is what the calls that send and receive have in common.
struct transfer {
	__u64 data, size, name, name_size;
};

static __always_inline void read_transfer(struct transfer *t, struct scratch *s, __u16 type)
{
	__u32 size = 0;
	t->data = s->args[1];
	t->size = s->args[2];
	t->name = s->args[4];
	switch (type) {
	case event_sendto:
		t->name_size = s->args[5];
		break;
	case event_recvfrom:
		bpf_probe_read_user(&size, sizeof(size), (void *)s->args[5]);
		t->name_size = size;
		break;
	default: {
		struct user_msghdr m = {};
		struct user_iovec first = {};
		bpf_probe_read_user(&m, sizeof(m), (void *)s->args[1]);
		if (m.iovlen)
			bpf_probe_read_user(&first, sizeof(first), (void *)m.iov);
		t->data = first.base;
		t->size = first.len;
		t->name = m.name;
		t->name_size = m.namelen;
	}
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_transfer, struct pt_regs *regs, long result)
{
	struct call *c = call_of(regs);
	if (!c)
		return 0;
	__u16 type = c->type;
	struct scratch *s = start_call(regs, result, type);
	struct transfer t = {};
	if (!s)
		return 0;
	bool sends = type == event_sendto || type == event_sendmsg;
	read_transfer(&t, s, type);
	if (!sends && result < 0)
		t.size = t.name_size = 0;
	__u64 moved = result >= 0 && result < t.size ? result : t.size;
	put_int(s, 0, result);
	put_user_bytes(s, type == event_recvmsg ? 2 : 1, t.data, moved, DATA_MAX);
	if (type == event_recvfrom) {
		put_int(s, 3, (__s32)s->args[0]);
		put_int(s, 4, t.size);
		put_tuple(s, 2, s->args[0], t.name, t.name_size);
	} else if (type == event_recvmsg) {
		put_int(s, 1, t.size);
		put_tuple(s, 3, s->args[0], t.name, t.name_size);
		put_int(s, 5, (__s32)s->args[0]);
	} else {
		put_int(s, 2, (__s32)s->args[0]);
		put_int(s, 3, t.size);
		put_tuple(s, 4, s->args[0], t.name, t.name_size);
	}
	if (t.name)
		put_address(s, tag_address, t.name, t.name_size);
	put_file(s, tag_fd, s->args[0]);
	return submit(s);
}
