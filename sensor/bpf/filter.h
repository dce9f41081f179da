// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Which opens for reading are of no interest to any rule. A file has two paths
// here: the one that the caller gave, made absolute, and the kernel's, which
// differ where there are symbolic links. An open is dropped only if neither can
// begin with a watched prefix, nor end with a watched name.
#pragma once
#include "file.h"

enum { READS_ALL, READS_WATCHED, READS_NONE };

// What the loader may change while programs run.
volatile __u32 open_reads = READS_ALL;
volatile __u32 watch_any_first = 0;  // a prefix does not say its first component
volatile __u64 connect_families = -1; // bit n: connects to AF n are wanted

#define FIRST_MAX 16
#define NAME_MAX 64
#define PREFIX_MAX 128
#define GIVEN_MAX 128 // of a path as it was given; longer ones pass

struct first {
	__u64 words[FIRST_MAX / 8];
};
struct name {
	__u64 words[NAME_MAX / 8];
};
struct prefix {
	__u32 bits;
	char path[PREFIX_MAX];
};

// The first components of watched prefixes.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct first);
	__type(value, __u8);
} watched_firsts SEC(".maps");

// Last components that are watched wherever they are.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct name);
	__type(value, __u8);
} watched_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} watched_prefixes SEC(".maps");

// What is not in these cannot be in the maps: bit n of the first is a component
// that begins with byte n (of its six lowest bits), of the second a name of n
// bytes, of the third a name that begins with byte n, of the last two one that
// ends with byte n and has byte n before that.
volatile __u64 first_letters = 0;
volatile __u64 name_lengths = 0;
volatile __u64 name_letters = 0;
volatile __u64 name_ends = 0;
volatile __u64 name_ends_before = 0;

static __always_inline bool has(__u64 bits, __u8 byte)
{
	return bits & 1ULL << (byte & 63);
}

enum verdict { DROP, PASS };

#define EACH 0x0101010101010101ULL
#define LOW7 (0x7f * EACH)
#define HIGH (0x80 * EACH)

// bytes_of marks the bytes of a word that are c, by their highest bits.
static __always_inline __u64 bytes_of(__u64 word, __u8 c)
{
	__u64 x = word ^ (c * EACH);
	return ~(((x & LOW7) + LOW7) | x | LOW7);
}

// keep returns a word without what begins at the first marked byte.
static __always_inline __u64 keep(__u64 word, __u64 marks)
{
	return word & (((marks & -marks) >> 7) - 1);
}

// first_word returns the first bytes of a text of the kernel, which is aligned. It
// has to be read as something that the kernel has a type of: this one begins with
// a number of as many bytes.
static __always_inline __u64 first_word(const void *text)
{
	return READ(struct timespec64, text, tv_sec);
}

// is_first_watched takes a path without its slash, as two words.
static __always_inline bool is_first_watched(__u64 a, __u64 b)
{
	struct first key = {};
	if (!has(first_letters, a))
		return false;
	__u64 end = bytes_of(a, '/') | bytes_of(a, 0);
	if (end) {
		key.words[0] = keep(a, end);
	} else {
		end = bytes_of(b, '/') | bytes_of(b, 0);
		key.words[0] = a;
		key.words[1] = end ? keep(b, end) : b;
	}
	return bpf_map_lookup_elem(&watched_firsts, &key);
}

// Entries that are deeper than this are passed, in doubt.
#define WATCHED_DEPTH 40

// is_component_watched says whether an entry below the root is a watched first
// component.
static __always_inline bool is_component_watched(void *d)
{
	struct first key = {};
	const void *name = READ(struct dentry, d, d_name.name);
	if (!has(first_letters, first_word(name)))
		return false;
	__u32 len = READ(struct dentry, d, d_name.len);
	if (len > FIRST_MAX)
		return false;
	bpf_probe_read_kernel(&key, len & 31, name);
	return bpf_map_lookup_elem(&watched_firsts, &key);
}

// is_below_watched says whether the first component of an entry's path is watched,
// or may be.
static __always_inline bool is_below_watched(struct task_struct *task, void *d, void *mnt)
{
	struct fs_struct *fs = task->fs;
	void *root = fs->root.dentry, *root_mnt = fs->root.mnt, *below = 0;
	void *mnt_root = READ(struct vfsmount, mnt, mnt_root);

	for (int i = 0; i < WATCHED_DEPTH; i++) {
		if (d == root || d == mnt_root) {
			if (d == root && mnt == root_mnt)
				return !below || is_component_watched(below);
			if (d == mnt_root) {
				void *m = mount_of(mnt), *above = READ(struct mount, m, mnt_parent);
				if (m == above)
					return true;
				d = READ(struct mount, m, mnt_mountpoint);
				mnt = mount_vfs(above);
				mnt_root = READ(struct vfsmount, mnt, mnt_root);
				continue;
			}
		}
		below = d;
		d = READ(struct dentry, d, d_parent);
	}
	return true;
}

// last_of returns the number of the last marked byte of a word.
static __always_inline __u32 last_of(__u64 marks)
{
	__u32 n = 0;
	if (marks >> 32) {
		n += 4;
		marks >>= 32;
	}
	if (marks >> 16) {
		n += 2;
		marks >>= 16;
	}
	return marks >> 8 ? n + 1 : n;
}

// plain_length returns the length of a text that holds no "//", "/./" or "/../",
// so that it is its own shortest form; 0 if it does, is empty or too long. It notes
// the last word that holds a slash. The text is whole, or follows a slash if
// relative is set; after its NUL anything may come.
static __always_inline int plain_length(struct scratch *s, bool relative)
{
	const __u64 *words = (void *)s->path;
	__u64 slash_before = relative ? 0x80 : 0, dot_before = 0;
	s->last_slashes = 0;
	for (int i = 0; i < GIVEN_MAX / 8; i++) {
		__u64 w = words[i];
		__u64 end = bytes_of(w, 0), before_end = (end & -end) - 1;
		__u64 slash = bytes_of(w, '/') & before_end, dot = bytes_of(w, '.') & before_end;
		__u64 after_slash = slash << 8 | slash_before;
		__u64 after_dot = (dot & after_slash) << 8 | dot_before;
		if ((after_slash & slash) | (after_dot & (slash | dot | end)))
			return 0;
		if (slash) {
			s->last_slashes = slash;
			s->last_word = i;
		}
		if (end)
			return i * 8 + last_of(end & -end);
		slash_before = slash >> 56;
		dot_before = (dot & after_slash) >> 56;
	}
	return 0;
}

// last_component returns where the last component of a plain text begins.
static __always_inline __u32 last_component(struct scratch *s)
{
	__u64 slashes = s->last_slashes;
	return slashes ? s->last_word * 8 + last_of(slashes) + 1 : 0;
}

static __always_inline bool has_length(__u32 len)
{
	return len < NAME_MAX && name_lengths & 1ULL << len;
}

static __always_inline bool is_name_watched(const void *address, __u32 len)
{
	struct name key = {};
	if (!has_length(len))
		return false;
	barrier_var(len); // the verifier needs the mask that the compiler would leave out
	bpf_probe_read_kernel(&key, len & (NAME_MAX - 1), address);
	if (!has(name_letters, key.words[0]))
		return false;
	return bpf_map_lookup_elem(&watched_names, &key);
}

// is_surely_unwanted says whether neither path can be watched, by what is quick to
// see. f is 0 if the open failed. It reads the path that was given into its own
// stack: the kernel takes longer to copy what is of a process to anywhere else.
static __always_inline bool is_surely_unwanted(struct task_struct *task, struct file *f, __u64 name, __s32 dirfd)
{
	union {
		__u64 words[GIVEN_MAX / 8];
		__u8 bytes[GIVEN_MAX];
	} given;
	long n = bpf_probe_read_user_str(&given, GIVEN_MAX, (void *)name);
	void *d, *mnt;

	if (n <= 2 || n >= GIVEN_MAX)
		return false;
	__u64 dot_before = 0;
	for (int i = 0; i < GIVEN_MAX / 8 && i * 8 < n; i++) {
		__u64 w = given.words[i] ^ '.' * EACH, dots = (w - EACH) & ~w & HIGH;
		if (dots & (dots << 8 | dot_before))
			return false; // ".." leads elsewhere
		dot_before = dots >> 56;
	}
	__u8 last = given.bytes[n - 2], before = given.bytes[n - 3];
	if ((has(name_ends, last) && has(name_ends_before, before)) || (last == '.' && before == '/'))
		return false;
	if (f) {
		d = READ(struct file, f, f_path.dentry);
		if (has(name_letters, first_word(READ(struct dentry, d, d_name.name))) && has_length(READ(struct dentry, d, d_name.len)))
			return false;
	}
	if (watch_any_first || (f && is_below_watched(task, d, READ(struct file, f, f_path.mnt))))
		return false;
	if (given.bytes[0] == '/') {
		if (given.bytes[1] == '/' || given.bytes[1] == '.')
			return false;
		return !is_first_watched(given.words[0] >> 8 | given.words[1] << 56, given.words[1] >> 8 | given.words[2] << 56);
	}
	if (dirfd == AT_FDCWD) {
		d = task->fs->pwd.dentry;
		mnt = task->fs->pwd.mnt;
	} else {
		struct file *base = file_of(task, dirfd);
		if (!base)
			return false;
		d = READ(struct file, base, f_path.dentry);
		mnt = READ(struct file, base, f_path.mnt);
	}
	return !is_below_watched(task, d, mnt);
}

// is_prefix_watched looks for a watched prefix of n bytes of a path.
static __always_inline bool is_prefix_watched(const char *path, __u32 n)
{
	struct prefix key = {};
	if (n > PREFIX_MAX)
		n = PREFIX_MAX;
	key.bits = n * 8;
	if (n == PREFIX_MAX)
		bpf_probe_read_kernel(key.path, PREFIX_MAX, path);
	else
		bpf_probe_read_kernel(key.path, n & (PREFIX_MAX - 1), path);
	return bpf_map_lookup_elem(&watched_prefixes, &key);
}

// judge_open compares both paths in full. It uses the memory of the record, which
// begins anew afterwards.
__noinline int judge_open(struct scratch *s, __u64 file, __u64 name, __s32 dirfd)
{
	if (!s)
		return PASS;
	long size = bpf_probe_read_user_str(s->path, GIVEN_MAX, (void *)name);
	if (size <= 0 || size >= GIVEN_MAX)
		return PASS;
	__u32 length = plain_length(s, s->path[0] != '/'), last = last_component(s);
	if (!length || is_name_watched(&s->path[last & (GIVEN_MAX - 1)], length - last))
		return PASS;
	char *path = s->rest + VALUE_HEAD;
	s->size = s->cut = 0;
	if (file) {
		void *d = READ(struct file, (void *)file, f_path.dentry);
		if (is_name_watched(READ(struct dentry, d, d_name.name), READ(struct dentry, d, d_name.len)))
			return PASS;
		put_file_path(s, tag_path, (struct file *)file);
		__u32 n = s->size;
		if (s->cut || n <= VALUE_HEAD || is_prefix_watched(path, n - VALUE_HEAD))
			return PASS;
	}
	s->size = s->cut = 0;
	put_user_path(s, tag_path, name, dirfd, tag_base);
	__u32 given = (s->rest[2] & 0xff) | (s->rest[3] & 0xff) << 8, n = s->size;
	if (s->cut || n <= VALUE_HEAD)
		return PASS;
	if (path[0] == '/')
		return is_prefix_watched(path, n - VALUE_HEAD) ? PASS : DROP;
	// The base follows as a value of its own: put the name after it.
	__u32 base = given + 2 * VALUE_HEAD;
	if (n <= base || n > RECORD_LIMIT - PATH_MAX || base > RECORD_LIMIT)
		return PASS;
	s->rest[n] = '/';
	bpf_probe_read_kernel(&s->rest[n + 1], given & (PATH_MAX - 1), path);
	__u32 from = base;
	if (n == base + 1) // the root alone
		from++;
	return is_prefix_watched(&s->rest[from], n - from + 1 + given) ? PASS : DROP;
}
