/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * The part of libbpf 1.x and of linux/bpf.h that vnethash calls, in the C
 * that cffi reads: no preprocessor, numbers as enumerators. It is no header
 * to compile against. libbpf reads a structure by the size its first field
 * states, so a structure here may stop early, never skip a field.
 */

/* linux/bpf.h */
enum vnb_prog_type {
	VNB_PROG_TYPE_UNSPEC = 0,
	VNB_PROG_TYPE_SOCKET_FILTER = 1,
	VNB_PROG_TYPE_SCHED_CLS = 3,
	VNB_PROG_TYPE_XDP = 6,
};

enum vnb_map_type {
	VNB_MAP_TYPE_ARRAY = 2,
	VNB_MAP_TYPE_PERCPU_HASH = 5,
	VNB_MAP_TYPE_PERCPU_ARRAY = 6,
	VNB_MAP_TYPE_LRU_PERCPU_HASH = 10,
};

enum vnb_attach_type {
	VNB_TCX_INGRESS = 46,
	VNB_TCX_EGRESS = 47,
};

enum vnb_link_type {
	VNB_LINK_TYPE_TCX = 11,
};

enum vnb_map_flag {
	VNB_F_MMAPABLE = 1024,
};

struct bpf_insn {
	uint8_t code;
	uint8_t registers; /* destination low nibble, source high, on little-endian */
	int16_t off;
	int32_t imm;
};

struct vnb_map_info {
	uint32_t type;
	uint32_t id;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t max_entries;
	uint32_t map_flags;
	char name[16];
};

struct vnb_prog_info {
	uint32_t type;
	uint32_t id;
	uint8_t tag[8];
	uint32_t jited_prog_len;
	uint32_t xlated_prog_len;
	uint64_t jited_prog_insns;
	uint64_t xlated_prog_insns;
	uint64_t load_time;
	uint32_t created_by_uid;
	uint32_t nr_map_ids;
	uint64_t map_ids;
	char name[16];
	uint32_t ifindex;
	uint32_t gpl_compatible; /* the lowest bit */
	uint64_t netns_dev;
	uint64_t netns_ino;
	uint32_t nr_jited_ksyms;
	uint32_t nr_jited_func_lens;
	uint64_t jited_ksyms;
	uint64_t jited_func_lens;
	uint32_t btf_id;
	uint32_t func_info_rec_size;
	uint64_t func_info;
	uint32_t nr_func_info;
	uint32_t nr_line_info;
	uint64_t line_info;
	uint64_t jited_line_info;
	uint32_t nr_jited_line_info;
	uint32_t line_info_rec_size;
	uint32_t jited_line_info_rec_size;
	uint32_t nr_prog_tags;
	uint64_t prog_tags;
	uint64_t run_time_ns;
	uint64_t run_cnt;
	uint64_t recursion_misses;
	uint32_t verified_insns;
};

/* struct bpf_link_info as it is for a tcx link */
struct vnb_tcx_link_info {
	uint32_t type;
	uint32_t id;
	uint32_t prog_id;
	uint32_t unused;
	uint32_t ifindex;
	uint32_t attach_type;
};

/* bpf/libbpf.h: library, messages */
uint32_t libbpf_major_version(void);
uint32_t libbpf_minor_version(void);
const char *libbpf_version_string(void);
int libbpf_num_possible_cpus(void);
const char *libbpf_bpf_prog_type_str(int type);
const char *libbpf_bpf_map_type_str(int type);

enum libbpf_print_level {
	LIBBPF_WARN,
	LIBBPF_INFO,
	LIBBPF_DEBUG,
};

/* The last argument is a va_list, passed on to vsnprintf() as it came. */
typedef int (*libbpf_print_fn_t)(enum libbpf_print_level, const char *, void *);
libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t fn);
int vsnprintf(char *text, size_t size, const char *format, void *arguments);

/* bpf/libbpf.h: objects */
struct bpf_object;
struct bpf_program;
struct bpf_map;

struct bpf_object_open_opts {
	size_t sz;
	const char *object_name;
};

struct bpf_object *bpf_object__open_mem(const void *image, size_t size,
					const struct bpf_object_open_opts *opts);
int bpf_object__load(struct bpf_object *object);
void bpf_object__close(struct bpf_object *object);
struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *object,
						     const char *name);
struct bpf_program *bpf_object__next_program(const struct bpf_object *object,
					     struct bpf_program *after);
const char *bpf_program__name(const struct bpf_program *program);
int bpf_program__fd(const struct bpf_program *program);
uint32_t bpf_program__flags(const struct bpf_program *program);
int bpf_program__set_flags(struct bpf_program *program, uint32_t flags);
int bpf_program__set_autoload(struct bpf_program *program, bool autoload);
int bpf_program__type(const struct bpf_program *program);
int bpf_program__set_log_level(struct bpf_program *program, uint32_t level);
int bpf_program__set_log_buf(struct bpf_program *program, char *text, size_t size);
int bpf_program__set_type(struct bpf_program *program, enum vnb_prog_type type);
struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *object, const char *name);
struct bpf_map *bpf_object__next_map(const struct bpf_object *object, const struct bpf_map *after);
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
int bpf_map__type(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
const char *bpf_map__pin_path(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
void *bpf_map__initial_value(const struct bpf_map *map, size_t *size);

/* bpf/libbpf.h: filters of the clsact queueing discipline */
enum bpf_tc_attach_point {
	BPF_TC_INGRESS = 1,
	BPF_TC_EGRESS = 2,
};

struct bpf_tc_hook {
	size_t sz;
	int ifindex;
	enum bpf_tc_attach_point attach_point;
	uint32_t parent;
};

enum bpf_tc_flags {
	BPF_TC_F_REPLACE = 1,
};

struct bpf_tc_opts {
	size_t sz;
	int prog_fd;
	uint32_t flags;
	uint32_t prog_id;
	uint32_t handle;
	uint32_t priority;
};

int bpf_tc_hook_create(struct bpf_tc_hook *hook);
int bpf_tc_hook_destroy(struct bpf_tc_hook *hook);
int bpf_tc_attach(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);
int bpf_tc_detach(const struct bpf_tc_hook *hook, const struct bpf_tc_opts *opts);
int bpf_tc_query(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);

/* bpf/bpf.h: the system call */
struct bpf_prog_load_opts {
	size_t sz;
	int attempts;
	enum vnb_attach_type expected_attach_type;
	uint32_t prog_btf_fd;
	uint32_t prog_flags;
	uint32_t prog_ifindex;
	uint32_t kern_version;
	uint32_t attach_btf_id;
	uint32_t attach_prog_fd;
	uint32_t attach_btf_obj_fd;
	const int *fd_array;
	const void *func_info;
	uint32_t func_info_cnt;
	uint32_t func_info_rec_size;
	const void *line_info;
	uint32_t line_info_cnt;
	uint32_t line_info_rec_size;
	uint32_t log_level;
	uint32_t log_size;
	char *log_buf;
};

int bpf_prog_load(enum vnb_prog_type type, const char *name, const char *license,
		  const struct bpf_insn *instructions, size_t count,
		  struct bpf_prog_load_opts *opts);

struct bpf_map_create_opts {
	size_t sz;
	uint32_t btf_fd;
	uint32_t btf_key_type_id;
	uint32_t btf_value_type_id;
	uint32_t btf_vmlinux_value_type_id;
	uint32_t inner_map_fd;
	uint32_t map_flags;
};

int bpf_map_create(enum vnb_map_type type, const char *name, uint32_t key_size,
		   uint32_t value_size, uint32_t max_entries,
		   const struct bpf_map_create_opts *opts);

int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_freeze(int fd);

struct bpf_map_batch_opts;

int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
			 uint32_t *count, const struct bpf_map_batch_opts *opts);

struct bpf_test_run_opts {
	size_t sz;
	const void *data_in;
	void *data_out;
	uint32_t data_size_in;
	uint32_t data_size_out;
	const void *ctx_in;
	void *ctx_out;
	uint32_t ctx_size_in;
	uint32_t ctx_size_out;
	uint32_t retval;
	int repeat;
	uint32_t duration;
	uint32_t flags;
	uint32_t cpu;
};

int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *opts);

int bpf_obj_pin(int fd, const char *path);
int bpf_obj_get(const char *path);
int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *size);

struct bpf_link_create_opts;
struct bpf_link_update_opts;

int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_prog_query(int target, int type, uint32_t query_flags, uint32_t *attach_flags,
		   uint32_t *ids, uint32_t *count);
int bpf_link_create(int program_fd, int target_fd, enum vnb_attach_type attach_type,
		    const struct bpf_link_create_opts *opts);
int bpf_link_update(int link_fd, int program_fd, const struct bpf_link_update_opts *opts);
int bpf_link_detach(int link_fd);
