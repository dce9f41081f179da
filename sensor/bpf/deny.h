// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The program that refuses to start others, by a guard of their cgroup. It may be
// interrupted by other tasks, so it writes no record: the call that fails does.
#pragma once
#include "process.h"

#define ELF 0x464c457f

// What the loader looks at: whether this kernel asks the program, which it does not
// where BPF is none of its active security modules.
volatile __u32 deny_asked = 0;

// id_of returns the id that a process has in the sensor's namespace, 0 if none.
static __always_inline __u32 id_of(struct task_struct *task)
{
	struct pid *self = BPF_CORE_READ(task, signal, pids[PIDTYPE_TGID]);
	if (!process_namespace)
		return task->tgid;
	for (__u32 level = 1; level <= LEVELS; level++) {
		__u32 id = number_at(self, level);
		if (id)
			return id;
	}
	return 0;
}

// is_program says whether a file is what the kernel runs itself. For a script it
// asks again about the interpreter.
static __always_inline bool is_program(struct linux_binprm *bprm)
{
	__u32 magic = 0;
	bpf_core_read(&magic, sizeof(magic), &bprm->buf);
	return magic == ELF;
}

// is_denied spares whom enforce spares; of the node is who would be once the
// program has started.
static __always_inline bool is_denied(struct task_struct *task, struct linux_binprm *bprm, __u32 *exe_flags)
{
	__u32 id = id_of(task);
	if (id == own_process)
		deny_asked = 1;
	if (!id || id == own_process || id == 1 || !is_program(bprm))
		return false;
	bool at = syscall_number((void *)bpf_task_pt_regs(task)) == nr_execveat;
	struct guard g = {.cgroup = BPF_CORE_READ(cgroup_of(task), kn, id), .type = at ? event_execveat : event_execve};
	struct order *o = bpf_map_lookup_elem(&guards, &g);
	if (!o || o->action != DENY || is_of_node(task, task->nsproxy->mnt_ns->ns.inum, BPF_CORE_READ(bprm, file, f_path.mnt)))
		return false;
	struct file *f = bprm->file;
	*exe_flags = executable_flags(task, g.cgroup, f, BPF_CORE_READ(f, f_inode));
	return !o->exe_flags || o->exe_flags & *exe_flags;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(deny_exec, struct linux_binprm *bprm, int before)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct denial d = {};
	if (before || !is_denied(task, bprm, &d.exe_flags))
		return before;
	d.start = task->group_leader->start_boottime;
	if (bpf_d_path(&bprm->file->f_path, d.path, sizeof(d.path)) < 0)
		d.path[0] = 0;
	__u64 thread = bpf_get_current_pid_tgid();
	long failure = bpf_map_update_elem(&denials, &thread, &d, 0);
	struct counters *c = count();
	if (c) {
		__sync_fetch_and_add(&c->denied, 1);
		if (failure)
			__sync_fetch_and_add(&c->denied_unmarked, 1);
	}
	return -EPERM;
}
