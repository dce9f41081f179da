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
// bytes, of the third a name that begins with byte n.
volatile __u64 first_letters = 0;
volatile __u64 name_lengths = 0;
volatile __u64 name_letters = 0;

enum verdict { DROP, CHECK_PREFIXES, PASS };

#define EACH 0x0101010101010101ULL
#define LOW7 (0x7f * EACH)

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

// is_first_watched takes a path without its slash, as two words.
static __always_inline bool is_first_watched(__u64 a, __u64 b)
{
	struct first key = {};
	if (!(first_letters & 1ULL << (a & 63)))
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

// first_watched says whether the first component of an entry's path is watched:
// DROP if not, CHECK_PREFIXES if so, PASS in doubt.
static __always_inline int first_watched(void *d, void *mnt)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	void *root = fs->root.dentry, *root_mnt = fs->root.mnt, *below = 0, *parent;
	void *mnt_root = READ(struct vfsmount, mnt, mnt_root);

	for (int i = 0; i < WATCHED_DEPTH; i++) {
		if (d == root && mnt == root_mnt) {
			struct first key = {};
			if (!below)
				return CHECK_PREFIXES;
			__u32 len = READ(struct dentry, below, d_name.len);
			if (len > FIRST_MAX)
				return DROP;
			bpf_probe_read_kernel(&key, len & 31, READ(struct dentry, below, d_name.name));
			if (!(first_letters & 1ULL << (key.words[0] & 63)))
				return DROP;
			return bpf_map_lookup_elem(&watched_firsts, &key) ? CHECK_PREFIXES : DROP;
		}
		if (d == mnt_root) {
			void *m = mount_of(mnt), *above = READ(struct mount, m, mnt_parent);
			if (m == above)
				return PASS;
			d = READ(struct mount, m, mnt_mountpoint);
			mnt = mount_vfs(above);
			mnt_root = READ(struct vfsmount, mnt, mnt_root);
			continue;
		}
		parent = READ(struct dentry, d, d_parent);
		if (parent == d)
			return PASS;
		below = d;
		d = parent;
	}
	return PASS;
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

static __always_inline bool is_name_watched(const void *address, __u32 len)
{
	struct name key = {};
	if (len >= NAME_MAX || !(name_lengths & 1ULL << len))
		return false;
	barrier_var(len); // the verifier needs the mask that the compiler would leave out
	bpf_probe_read_kernel(&key, len & (NAME_MAX - 1), address);
	if (!(name_letters & 1ULL << (key.words[0] & 63)))
		return false;
	return bpf_map_lookup_elem(&watched_names, &key);
}

// look_at_open decides from what is quick to see. f is 0 if the open failed. The
// dispatcher has it in one piece: what makes tail calls may have no functions of
// its own on some architectures.
static __always_inline int look_at_open(struct scratch *s, struct file *f, __u64 name, __s32 dirfd)
{
	void *d = 0, *mnt = 0;
	__u64 *words = (void *)s->path;
	enum verdict verdict = DROP;

	// A text at the end of a page cannot be read with what follows it.
	if (bpf_probe_read_user(s->path, GIVEN_MAX, (void *)name) && bpf_probe_read_user_str(s->path, GIVEN_MAX, (void *)name) <= 0)
		return PASS;
	bool relative = s->path[0] != '/';
	if (f)
		d = READ(struct file, f, f_path.dentry);
	__u32 n = plain_length(s, relative);
	if (!n)
		return PASS;
	if (name_lengths) {
		__u32 last = last_component(s);
		if (is_name_watched(&s->path[last & (GIVEN_MAX - 1)], n - last))
			return PASS;
		if (d && is_name_watched(READ(struct dentry, d, d_name.name), READ(struct dentry, d, d_name.len)))
			return PASS;
	}
	if (watch_any_first)
		return CHECK_PREFIXES;
	if (f) {
		verdict = first_watched(d, READ(struct file, f, f_path.mnt));
		if (verdict != DROP)
			return verdict;
	}
	if (!relative)
		return is_first_watched(words[0] >> 8 | words[1] << 56, words[1] >> 8 | words[2] << 56) ? CHECK_PREFIXES : DROP;
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	if (dirfd == AT_FDCWD) {
		d = fs->pwd.dentry;
		mnt = fs->pwd.mnt;
	} else {
		struct file *base = file_of(task, dirfd);
		if (!base)
			return PASS;
		d = READ(struct file, base, f_path.dentry);
		mnt = READ(struct file, base, f_path.mnt);
	}
	return first_watched(d, mnt);
}

// judge_open is the same for programs that are too long to hold it.
__noinline int judge_open(struct scratch *s, __u64 file, __u64 name, __s32 dirfd)
{
	return s ? look_at_open(s, (struct file *)file, name, dirfd) : PASS;
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

// judge_prefixes compares both paths in full. It uses the memory of the record,
// which begins anew afterwards.
__noinline int judge_prefixes(struct scratch *s, __u64 file, __u64 name, __s32 dirfd)
{
	if (!s)
		return PASS;
	char *path = s->rest + VALUE_HEAD;
	s->size = s->cut = 0;
	if (file) {
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
