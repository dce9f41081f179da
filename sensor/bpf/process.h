// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Programs about processes: fork, exec, exit.
#pragma once
#include "file.h"

// Numbers of calls, by the architecture; -1 where there is no such call.
const volatile __s32 nr_fork = -1, nr_vfork = -1, nr_clone = -1, nr_clone3 = -1, nr_execveat = -1;

static __always_inline __s32 syscall_number(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, orig_ax);
#else
	return BPF_CORE_READ(regs, syscallno);
#endif
}

static __always_inline __u64 first_argument(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, di);
#else
	return BPF_CORE_READ(regs, orig_x0);
#endif
}

// Positions of the parameters of clone, clone3, fork and vfork.
enum {
	clone_res = 0, clone_tid = 3, clone_pid, clone_ptid, clone_vm_size = 10, clone_comm = 13, clone_cgroups, clone_flags,
	clone_uid, clone_gid, clone_vtid, clone_vpid, clone_pidns_start,
};

// made_by says by which call the running task makes a process, and with which
// flags.
static __always_inline __u16 made_by(struct task_struct *task, __u64 *flags)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	__s32 nr = syscall_number(regs);
	*flags = 0;
	if (nr == nr_fork)
		return event_fork;
	if (nr == nr_vfork) {
		*flags = CLONE_VFORK | CLONE_VM;
		return event_vfork;
	}
	if (nr == nr_clone3) {
		bpf_probe_read_user(flags, sizeof(*flags), (void *)first_argument(regs));
		return event_clone3;
	}
	if (nr == nr_clone)
		*flags = first_argument(regs) & 0xffffffff;
	return event_clone;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid != child->tgid)
		return 0;
	__u64 flags;
	__u16 type = made_by(bpf_get_current_task_btf(), &flags);
	struct scratch *s = start(child, type);
	if (!s)
		return 0;
	set_result(s, 0);
	put_int(s, clone_res, 0);
	put_int(s, clone_tid, s->header.tid);
	put_int(s, clone_pid, s->header.tgid);
	put_int(s, clone_ptid, s->header.parent);
	put_kernel_text(s, clone_comm, child->comm);
	put_cgroup(s, clone_cgroups, (__u64)cgroup_of(child));
	put_int(s, clone_flags, flags);
	put_int(s, clone_uid, s->header.uid);
	put_int(s, clone_gid, s->header.gid);
	put_int(s, clone_vtid, s->header.vtid);
	put_int(s, clone_vpid, s->header.vpid);
	put_int(s, clone_pidns_start, BPF_CORE_READ(namespace_of(child), child_reaper, start_boottime));
	return submit(s);
}

// Positions of the parameters of execve; execveat has the same but the last.
enum {
	exec_res, exec_exe, exec_args, exec_tid, exec_pid, exec_ptid, exec_cwd, exec_fdlimit, exec_pgft_maj, exec_pgft_min,
	exec_vm_size, exec_vm_rss, exec_vm_swap, exec_comm, exec_cgroups, exec_env, exec_tty, exec_vpgid, exec_loginuid,
	exec_flags, exec_cap_inheritable, exec_cap_permitted, exec_cap_effective, exec_ino, exec_ctime, exec_mtime, exec_uid,
	exec_path, exec_pgid, exec_gid, exec_filename,
};

enum { EXE_WRITABLE = 1, EXE_UPPER = 2, EXE_MEMFD = 4, EXE_LOWER = 8, EXE_UNLINKED = 16, EXE_TMPFS = 32, EXE_ADDED = 64 };

// put_strings writes what lies between two addresses of the process, at most
// VALUE_MAX bytes of it.
static __always_inline void put_strings(struct scratch *s, __u32 tag, __u64 from, __u64 to)
{
	put_user_bytes(s, tag, from, to > from ? to - from : 0, VALUE_MAX);
}

// put_arguments writes the first argument, then the others.
static __always_inline void put_arguments(struct scratch *s, struct mm_struct *mm)
{
	__u64 from = BPF_CORE_READ(mm, arg_start), to = BPF_CORE_READ(mm, arg_end);
	char *value = put(s);
	if (!value || !from || to <= from)
		return;
	long n = bpf_probe_read_user_str(value + VALUE_HEAD, VALUE_MAX, (void *)from);
	if (n <= 0)
		return;
	put_head(s, value, exec_exe, (n - 1) & (2 * VALUE_MAX - 1), n == VALUE_MAX);
	put_strings(s, exec_args, from + n, to);
}

static __always_inline bool is_writable(struct task_struct *task, struct file *f, struct inode *inode)
{
	if (BPF_CORE_READ(inode, i_sb, s_flags) & SB_RDONLY || BPF_CORE_READ(f, f_path.mnt, mnt_flags) & MNT_READONLY)
		return false;
	const struct cred *cred = task->cred;
	__u64 capabilities = 0;
	bpf_core_read(&capabilities, sizeof(capabilities), &cred->cap_effective);
	__u16 mode = BPF_CORE_READ(inode, i_mode);
	if (capabilities & 1ULL << CAP_DAC_OVERRIDE || mode & 2)
		return true;
	if (BPF_CORE_READ(inode, i_uid.val) == BPF_CORE_READ(cred, fsuid.val))
		return mode & 0200;
	return mode & 020 && BPF_CORE_READ(inode, i_gid.val) == BPF_CORE_READ(cred, fsgid.val);
}

// The file system that a root is on.
struct root {
	__u32 device;
	__u32 is_overlay;
};

// The roots of containers, by cgroup: that of the first program which started in it
// and is not of the node. A process may give itself another one later.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct root);
} roots SEC(".maps");

static __always_inline struct root root_of(struct task_struct *task)
{
	struct super_block *sb = BPF_CORE_READ(task, fs, root.dentry, d_sb);
	struct root r = {BPF_CORE_READ(sb, s_dev), BPF_CORE_READ(sb, s_magic) == OVERLAYFS_MAGIC};
	return r;
}

static __always_inline void keep_root(struct task_struct *task, struct header *h)
{
	if (!with_enforcement || h->flags & OF_NODE || bpf_map_lookup_elem(&roots, &h->cgroup))
		return;
	struct root r = root_of(task);
	bpf_map_update_elem(&roots, &h->cgroup, &r, BPF_NOEXIST);
}

// was_added says whether an executable is not of the image that the container runs:
// not in a lower layer of that overlay. A root on anything else does not show it.
static __always_inline bool was_added(struct task_struct *task, __u64 cgroup, struct inode *inode, __u32 where)
{
	struct root *kept = with_enforcement ? bpf_map_lookup_elem(&roots, &cgroup) : 0;
	struct root r = kept ? *kept : root_of(task);
	return r.is_overlay && (where != LOWER || BPF_CORE_READ(inode, i_sb, s_dev) != r.device);
}

static __always_inline __u32 executable_flags(struct task_struct *task, __u64 cgroup, struct file *f, struct inode *inode)
{
	__u32 flags = 0, where = layer(inode);
	__u64 magic = BPF_CORE_READ(inode, i_sb, s_magic);
	if (is_memory_file(f, inode))
		flags |= EXE_MEMFD;
	else if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC)
		flags |= EXE_TMPFS;
	if (where == UPPER)
		flags |= EXE_UPPER;
	if (where == LOWER)
		flags |= EXE_LOWER;
	if (!BPF_CORE_READ(inode, i_nlink))
		flags |= EXE_UNLINKED;
	if (is_writable(task, f, inode))
		flags |= EXE_WRITABLE;
	if (was_added(task, cgroup, inode, where))
		flags |= EXE_ADDED;
	return flags;
}

static __always_inline void put_times(struct scratch *s, struct inode *inode)
{
	struct timespec64 c = {}, m = {};
	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		c.tv_sec = BPF_CORE_READ(inode, i_ctime_sec);
		c.tv_nsec = BPF_CORE_READ(inode, i_ctime_nsec);
		m.tv_sec = BPF_CORE_READ(inode, i_mtime_sec);
		m.tv_nsec = BPF_CORE_READ(inode, i_mtime_nsec);
	} else if (bpf_core_field_exists(((struct inode___before_6_11 *)0)->__i_mtime)) {
		struct inode___before_6_11 *old = (void *)inode;
		bpf_core_read(&c, sizeof(c), &old->__i_ctime);
		bpf_core_read(&m, sizeof(m), &old->__i_mtime);
	} else if (bpf_core_field_exists(((struct inode___before_6_7 *)0)->__i_ctime)) {
		struct inode___before_6_7 *old = (void *)inode;
		bpf_core_read(&c, sizeof(c), &old->__i_ctime);
		bpf_core_read(&m, sizeof(m), &old->i_mtime);
	} else {
		struct inode___before_6_6 *old = (void *)inode;
		bpf_core_read(&c, sizeof(c), &old->i_ctime);
		bpf_core_read(&m, sizeof(m), &old->i_mtime);
	}
	put_int(s, exec_ctime, c.tv_sec * 1000000000LL + c.tv_nsec);
	put_int(s, exec_mtime, m.tv_sec * 1000000000LL + m.tv_nsec);
}

static __always_inline void put_capabilities(struct scratch *s, struct task_struct *task, __u32 first)
{
	const struct cred *cred = task->cred;
	__u64 set = 0;
	bpf_core_read(&set, sizeof(set), &cred->cap_inheritable);
	put_int(s, first, set);
	bpf_core_read(&set, sizeof(set), &cred->cap_permitted);
	put_int(s, first + 1, set);
	bpf_core_read(&set, sizeof(set), &cred->cap_effective);
	put_int(s, first + 2, set);
}

static __always_inline void put_executable(struct scratch *s, struct task_struct *task, struct file *f)
{
	struct inode *inode = BPF_CORE_READ(f, f_inode);
	keep_root(task, &s->header);
	s->exe_flags = executable_flags(task, s->header.cgroup, f, inode);
	put_int(s, exec_flags, s->exe_flags);
	put_int(s, exec_ino, BPF_CORE_READ(inode, i_ino));
	put_int(s, tag_device, device(inode));
	put_times(s, inode);
	put_file_path(s, exec_path, f);
}

// What was denied of the exec that a thread is about to fail in, for its record. Of
// calls that make none it stays, until it is the oldest.
struct denial {
	__u64 start; // of the process
	__u32 exe_flags, padding;
	char path[256]; // as the kernel knows it; empty if it is longer
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct denial);
} denials SEC(".maps");

static __always_inline void put_denial(struct scratch *s)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct denial *d = bpf_map_lookup_elem(&denials, &thread);
	if (!d)
		return;
	if (d->start == s->header.start && s->header.result == -EPERM) {
		put_int(s, exec_flags, d->exe_flags);
		if (d->path[0])
			put_kernel_text(s, exec_path, d->path);
		put_int(s, tag_enforced, DENY);
	}
	bpf_map_delete_elem(&denials, &thread);
}

#define RLIMIT_NOFILE 7
#define PAGE_KIB 4

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, pid_t old, struct linux_binprm *bprm)
{
	bool at = syscall_number((void *)bpf_task_pt_regs(task)) == nr_execveat;
	struct scratch *s = start(task, at ? event_execveat : event_execve);
	if (!s)
		return 0;
	struct mm_struct *mm = task->mm;
	set_result(s, 0);
	put_int(s, exec_res, 0);
	put_int(s, exec_tid, s->header.tid);
	put_int(s, exec_pid, s->header.tgid);
	put_int(s, exec_ptid, s->header.parent);
	put_int(s, exec_pgft_maj, task->maj_flt);
	put_int(s, exec_pgft_min, task->min_flt);
	put_int(s, exec_fdlimit, BPF_CORE_READ(task, signal, rlim[RLIMIT_NOFILE].rlim_cur));
	put_int(s, exec_vm_size, BPF_CORE_READ(mm, total_vm) * PAGE_KIB);
	put_int(s, exec_tty, s->header.tty);
	put_int(s, exec_vpgid, s->header.vpgid);
	put_int(s, exec_loginuid, (__s32)s->header.loginuid);
	put_int(s, exec_uid, s->header.uid);
	put_int(s, exec_gid, s->header.gid);
	put_int(s, exec_pgid, s->header.pgid);
	put_capabilities(s, task, exec_cap_inheritable);
	put_kernel_text(s, exec_comm, task->comm);
	put_executable(s, task, bprm->file);
	put_cgroup(s, exec_cgroups, (__u64)cgroup_of(task));
	put_cwd(s, exec_cwd, task);
	put_file(s, tag_stdin, 0);
	put_file(s, tag_stdout, 1);
	put_file(s, tag_stderr, 2);
	put_arguments(s, mm);
	if (!at)
		put_kernel_text(s, exec_filename, bprm->filename);
	if (with_environment)
		put_strings(s, exec_env, BPF_CORE_READ(mm, env_start), BPF_CORE_READ(mm, env_end));
	return submit(s);
}

enum { exit_status, exit_ret, exit_sig, exit_core, exit_reaper };

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	if (signal->live.counter)
		return 0;
	struct scratch *s = start(task, event_procexit);
	if (!s)
		return 0;
	__u32 code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
	put_int(s, exit_status, code);
	put_int(s, exit_ret, code >> 8 & 0xff);
	put_int(s, exit_sig, code & 0x7f);
	put_int(s, exit_core, code >> 7 & 1);
	return submit(s);
}
