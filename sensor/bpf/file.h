// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Files, sockets among them: what a descriptor stands for.
#pragma once
#include "path.h"

enum file_state { CREATED = 1, UPPER = 2, LOWER = 4 };

// layer returns where in an overlay a file is, 0 if it is on none. The upper
// entry follows the inode in the overlay's own structure.
static __always_inline __u32 layer(struct inode *inode)
{
	if (BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_MAGIC)
		return 0;
	struct dentry *upper = 0;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	return upper && BPF_CORE_READ(upper, d_inode) ? UPPER : LOWER;
}

// device returns a device number as stat(2) shows it.
static __always_inline __u32 device(struct inode *inode)
{
	__u32 dev = BPF_CORE_READ(inode, i_sb, s_dev);
	__u32 major = dev >> 20, minor = dev & 0xfffff;
	return (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}

struct tuple {
	__u16 family;
	__u8 protocol, connected;
	__u16 local_port, remote_port; // or the lengths of names
	__u8 local[16], remote[16];
};

enum { TUPLE_HEAD = 8, FILE_HEAD = 24, UNIX_MAX = 108 };

static __always_inline struct socket *socket_of(struct file *f)
{
	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	return BPF_CORE_READ(f, private_data);
}

static __always_inline __u16 swap16(__u16 n)
{
	return n << 8 | n >> 8;
}

// read_ends reads the addresses of an IP socket.
static __always_inline void read_ends(struct tuple *t, struct sock *sk)
{
	t->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	t->remote_port = swap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (t->family == AF_INET) {
		bpf_core_read(t->local, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(t->remote, 4, &sk->__sk_common.skc_daddr);
	} else {
		bpf_core_read(t->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(t->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

// read_named takes the remote end from an address that the caller gave.
static __always_inline void read_named(struct tuple *t, __u64 address, __u64 size)
{
	struct {
		__u16 family, port;
		__u32 first;
		__u8 six[16];
	} a = {};
	if (!address || size < 8)
		return;
	bpf_probe_read_user(&a, size >= sizeof(a) ? sizeof(a) : 8, (void *)address);
	if (a.family != t->family)
		return;
	t->remote_port = swap16(a.port);
	if (a.family == AF_INET) {
		__builtin_memcpy(t->remote, &a.first, 4);
	} else if (a.family == AF_INET6 && size >= sizeof(a)) {
		__builtin_memcpy(t->remote, a.six, 16);
	}
}

// unix_name writes the name of a Unix socket, and returns its length.
static __always_inline __u32 unix_name(char *to, struct unix_address *address)
{
	if (!address)
		return 0;
	__u32 n = BPF_CORE_READ(address, len);
	if (n <= 2 || n > UNIX_MAX + 2)
		return 0;
	n -= 2;
	if (n > UNIX_MAX)
		return 0;
	void *name = (void *)address->name + bpf_core_field_offset(struct sockaddr_un, sun_path);
	if (bpf_probe_read_kernel(to, n & 127, name))
		return 0;
	if (to[0]) { // a path, which may end with NUL
		long size = bpf_probe_read_kernel_str(to, UNIX_MAX, name);
		return size > 0 ? (size - 1) & 127 : 0;
	}
	return n;
}

// write_tuple writes a socket with its ends at a place of the record that has
// room for a value. It returns its size. The remote end is the address that the
// caller named, if there is one.
static __always_inline __u32 write_tuple(char *to, struct socket *socket, __u64 address, __u64 address_size)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);
	struct tuple t = {};
	if (!sk)
		return 0;
	t.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	t.connected = BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_ESTABLISHED;
	if (t.family == AF_INET || t.family == AF_INET6) {
		t.protocol = BPF_CORE_READ(sk, sk_protocol);
		read_ends(&t, sk);
		read_named(&t, address, address_size);
		__builtin_memcpy(to, &t, sizeof(t));
		return sizeof(t);
	}
	t.protocol = BPF_CORE_READ(socket, type);
	if (t.family == AF_UNIX) {
		struct unix_sock *u = (void *)sk;
		struct sock *peer = BPF_CORE_READ(u, peer);
		t.local_port = unix_name(to + TUPLE_HEAD, BPF_CORE_READ(u, addr)) & 127;
		char *remote = to + TUPLE_HEAD + t.local_port;
		if (peer)
			t.remote_port = unix_name(remote, BPF_CORE_READ((struct unix_sock *)peer, addr)) & 127;
		if (!t.remote_port && address && address_size > 2 && address_size <= UNIX_MAX + 2) {
			__u32 n = (address_size - 2) & 127;
			if (!bpf_probe_read_user(remote, n, (void *)(address + 2)))
				t.remote_port = n;
			if (n && remote[0]) {
				long size = bpf_probe_read_user_str(remote, n, (void *)(address + 2));
				t.remote_port = size > 0 ? (size - 1) & 127 : 0;
			}
		}
	}
	__builtin_memcpy(to, &t, TUPLE_HEAD);
	return TUPLE_HEAD + t.local_port + t.remote_port;
}

// put_tuple writes the socket of a descriptor.
__noinline int put_tuple(struct scratch *s, __u32 tag, __u32 fd, __u64 address, __u64 address_size)
{
	if (!s)
		return 0;
	struct socket *socket = socket_of(file_of(bpf_get_current_task_btf(), fd));
	char *value = put(s);
	if (!socket || !value)
		return 0;
	__u32 n = write_tuple(value + VALUE_HEAD, socket, address, address_size);
	if (n)
		put_head(s, value, tag, n & 1023, false);
	return 0;
}

static __always_inline bool is_memory_file(struct file *f, struct inode *inode)
{
	char name[8] = {};
	struct dentry *d = BPF_CORE_READ(f, f_path.dentry);
	if (BPF_CORE_READ(inode, i_sb, s_magic) != TMPFS_MAGIC || BPF_CORE_READ(d, d_parent) != d)
		return false;
	bpf_probe_read_kernel(name, 6, BPF_CORE_READ(d, d_name.name));
	return name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && name[3] == 'f' && name[4] == 'd' && name[5] == ':';
}

static __always_inline char kind_of(struct file *f, struct inode *inode, struct socket *socket)
{
	__u64 magic = BPF_CORE_READ(inode, i_sb, s_magic);
	if (magic == ANON_INODE_MAGIC)
		return 'a';
	if (magic == PIDFS_MAGIC)
		return 'P';
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case S_IFDIR:
		return 'd';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		if (!socket)
			return 'f'; // its name in a directory
		switch (BPF_CORE_READ(socket, sk, __sk_common.skc_family)) {
		case AF_INET:
			return '4';
		case AF_INET6:
			return '6';
		case AF_UNIX:
			return 'u';
		case AF_NETLINK:
			return 'n';
		}
		return 'S';
	}
	return is_memory_file(f, inode) ? 'm' : 'f';
}

// put_file writes what a descriptor stands for; nothing if it is not open.
__noinline int put_file(struct scratch *s, __u32 tag, __u32 fd)
{
	if (!s)
		return 0;
	struct file *f = file_of(bpf_get_current_task_btf(), fd);
	if (!f)
		return 0;
	struct inode *inode = BPF_CORE_READ(f, f_inode);
	struct socket *socket = socket_of(f);
	char kind = kind_of(f, inode, socket);
	__u32 at = s->size, body = 0;

	// The path is written as a value of its own, with its head where the last
	// bytes of the file's head go; then the head is written over it.
	if (at > RECORD_LIMIT - FILE_HEAD) {
		s->cut++;
		return 0;
	}
	char *value = s->rest + at;
	bool cut = false;
	if (socket && kind != 'f') {
		body = write_tuple(value + VALUE_HEAD + FILE_HEAD, socket, 0, 0) & 1023;
		if (!body)
			return 0;
	} else {
		__u32 before = s->cut;
		s->size = at + FILE_HEAD;
		put_file_path(s, tag, f);
		__u32 after = s->size;
		s->size = at;
		if (after < at + FILE_HEAD + VALUE_HEAD)
			return 0;
		body = after - at - FILE_HEAD - VALUE_HEAD;
		cut = s->cut != before;
		s->cut = before;
	}
	if (at > RECORD_LIMIT - FILE_HEAD)
		return 0;
	value = s->rest + at;
	*(__u32 *)(value + VALUE_HEAD) = (__u8)kind | layer(inode) << 8;
	*(__u32 *)(value + VALUE_HEAD + 4) = BPF_CORE_READ(f, f_flags);
	*(__u64 *)(value + VALUE_HEAD + 8) = device(inode);
	*(__u64 *)(value + VALUE_HEAD + 16) = BPF_CORE_READ(inode, i_ino);
	put_head(s, value, tag, FILE_HEAD + body, cut);
	return 0;
}
