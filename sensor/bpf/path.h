// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Paths as the kernel knows them: from a directory entry to the root of the
// process, across mounts. bpf_d_path is not to be had where these programs run.
#pragma once
#include "buffer.h"

// bpf_rdonly_cast gives a type to a pointer, so that its members can be read without
// a call. Older kernels do not have it.
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

#define READ(type, pointer, member) \
	(bpf_rdonly_cast ? ((type *)bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(type)))->member : BPF_CORE_READ((type *)(pointer), member))

#define MAX_DEPTH 80 // components and mounts of a path

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

static __always_inline struct vfsmount *mount_vfs(struct mount *m)
{
	return (void *)m + bpf_core_field_offset(struct mount, mnt);
}

// put_path writes the path of a directory entry on a mount. What is not below
// the root of the process, such as memory files and pipes, has its bare name. A
// path that is too long or too deep keeps its end, and is marked as cut.
__noinline int put_path(struct scratch *s, __u32 tag, __u64 entry, __u64 mnt_address)
{
	if (!s)
		return 0;
	void *d = (void *)entry, *mnt = (void *)mnt_address, *root, *root_mnt, *parent, *mnt_root;
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	__u32 off;
	bool whole = false, bare = false;

	s->path_at = PATH_MAX;
	root = fs->root.dentry;
	root_mnt = fs->root.mnt;
	for (int i = 0; i < MAX_DEPTH && !whole; i++) {
		if (d == root && mnt == root_mnt) {
			whole = true;
			break;
		}
		mnt_root = READ(struct vfsmount, mnt, mnt_root);
		parent = READ(struct dentry, d, d_parent);
		if (d == mnt_root || d == parent) {
			void *m = mount_of(mnt), *above = READ(struct mount, m, mnt_parent);
			if (d == mnt_root && m != above) {
				d = READ(struct mount, m, mnt_mountpoint);
				mnt = mount_vfs(above);
				continue;
			}
			whole = true;
			if (d == mnt_root)
				break;
			bare = true;
		}
		__u32 len = READ(struct dentry, d, d_name.len);
		off = s->path_at;
		if (len > 255 || off < len + 1 || off > PATH_MAX) {
			whole = false;
			break;
		}
		off -= len;
		s->path_at = off;
		bpf_probe_read_kernel(&s->path[off & (PATH_MAX - 1)], len & 255, READ(struct dentry, d, d_name.name));
		if (bare)
			break;
		off--;
		s->path[off & (PATH_MAX - 1)] = '/';
		s->path_at = off;
		d = parent;
	}
	off = s->path_at;
	if (off == PATH_MAX && !bare) {
		off--;
		s->path[off & (PATH_MAX - 1)] = '/';
	}
	char *value = put(s);
	if (!value)
		return 0;
	__u32 n = PATH_MAX - off;
	if (n > PATH_MAX)
		return 0;
	bpf_probe_read_kernel(value + VALUE_HEAD, n, &s->path[off & (PATH_MAX - 1)]);
	put_head(s, value, tag, n, !whole);
	return 0;
}

// untyped returns a pointer as the number that functions take which are checked
// once: what was in memory has no type any more.
static __always_inline __u64 untyped(struct scratch *s, void *pointer)
{
	*(void *volatile *)&s->args[7] = pointer;
	return *(volatile __u64 *)&s->args[7];
}

static __always_inline void put_file_path(struct scratch *s, __u32 tag, struct file *f)
{
	put_path(s, tag, untyped(s, READ(struct file, f, f_path.dentry)), untyped(s, READ(struct file, f, f_path.mnt)));
}

static __always_inline void put_cwd(struct scratch *s, __u32 tag, struct task_struct *task)
{
	struct fs_struct *fs = task->fs;
	put_path(s, tag, untyped(s, fs->pwd.dentry), untyped(s, fs->pwd.mnt));
}

static __always_inline struct file *file_of(struct task_struct *task, __s32 fd)
{
	struct fdtable *table = task->files->fdt;
	if (fd < 0 || fd >= table->max_fds)
		return 0;
	return (void *)READ(struct list_head, table->fd + fd, next);
}

// put_base writes what a path that does not begin with a slash is relative to.
static __always_inline void put_base(struct scratch *s, __u32 tag, struct task_struct *task, __s32 dirfd)
{
	if (dirfd == AT_FDCWD) {
		put_cwd(s, tag, task);
		return;
	}
	struct file *f = file_of(task, dirfd);
	if (f)
		put_file_path(s, tag, f);
}

// put_user_path writes a path that the caller gave, and its base if it has one.
__noinline int put_user_path(struct scratch *s, __u32 tag, __u64 address, __s32 dirfd, __u32 base_tag)
{
	if (!s)
		return 0;
	char first = 0;
	if (!address || bpf_probe_read_user(&first, 1, (void *)address))
		return 0;
	put_user_text(s, tag, address);
	if (first != '/')
		put_base(s, base_tag, bpf_get_current_task_btf(), dirfd);
	return 0;
}

#define MAX_CGROUPS 32

// put_cgroup writes the path of the cgroup, after the controller's name.
__noinline int put_cgroup(struct scratch *s, __u32 tag, __u64 cgroup)
{
	if (!s)
		return 0;
	struct kernfs_node *kn = BPF_CORE_READ((struct cgroup *)cgroup, kn), *parent;
	__u32 off = PATH_MAX - 1;
	bool whole = false;

	s->path[off] = 0;
	for (int i = 0; i < MAX_CGROUPS; i++) {
		if (bpf_core_field_exists(kn->__parent))
			parent = BPF_CORE_READ(kn, __parent);
		else
			parent = BPF_CORE_READ((struct kernfs_node___before_6_15 *)kn, parent);
		if (!parent) {
			whole = true;
			break;
		}
		// The name of a directory has at most 255 bytes; it is written at the
		// end of the room, then moved to where it belongs by its length.
		const char *name = BPF_CORE_READ(kn, name);
		long n = bpf_probe_read_kernel_str(&s->rest[RECORD_LIMIT + VALUE_MAX], 256, name);
		if (n < 1 || off < 256 + 16)
			break;
		n--;
		off -= n & 255;
		bpf_probe_read_kernel(&s->path[off & (PATH_MAX - 1)], n & 255, &s->rest[RECORD_LIMIT + VALUE_MAX]);
		off--;
		s->path[off & (PATH_MAX - 1)] = '/';
		kn = parent;
	}
	if (off == PATH_MAX - 1) {
		off--;
		s->path[off & (PATH_MAX - 1)] = '/';
	}
	off--;
	s->path[off & (PATH_MAX - 1)] = '=';
	off -= cgroup_name_size & 7;
	bpf_probe_read_kernel(&s->path[off & (PATH_MAX - 1)], cgroup_name_size & 7, (void *)cgroup_name);
	char *value = put(s);
	__u32 n = PATH_MAX - off;
	if (!value || n > PATH_MAX)
		return 0;
	bpf_probe_read_kernel(value + VALUE_HEAD, n, &s->path[off & (PATH_MAX - 1)]);
	put_head(s, value, tag, n, !whole);
	return 0;
}
