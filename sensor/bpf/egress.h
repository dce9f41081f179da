// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Programs for a cgroup that may reach nothing but the loopback any more.
#pragma once
#include "buffer.h"

// What the kernel shows of an address: its interface, which does not change.
struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
};

static __always_inline bool is_loopback4(__u32 address)
{
	return (address & 0xff) == 127;
}

static __always_inline int pass4(struct bpf_sock_addr *a)
{
	return is_loopback4(a->user_ip4);
}

static __always_inline int pass6(struct bpf_sock_addr *a)
{
	if (a->user_ip6[0] || a->user_ip6[1])
		return 0;
	if (a->user_ip6[2] == 0xffff0000) // an IPv4 address in this form
		return is_loopback4(a->user_ip6[3]);
	return !a->user_ip6[2] && a->user_ip6[3] == 0x01000000;
}

SEC("cgroup/connect4")
int egress_connect4(struct bpf_sock_addr *a)
{
	return pass4(a);
}

SEC("cgroup/connect6")
int egress_connect6(struct bpf_sock_addr *a)
{
	return pass6(a);
}

SEC("cgroup/sendmsg4")
int egress_sendmsg4(struct bpf_sock_addr *a)
{
	return pass4(a);
}

SEC("cgroup/sendmsg6")
int egress_sendmsg6(struct bpf_sock_addr *a)
{
	return pass6(a);
}
