/* Shards: a table of entries to and from the image of an HDF5 file, always in memory. The only file that includes
 * HDF5; its core driver never touches the disk here, so that a full disk or a kill never meets the library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hdf5.h>
#include <jansson.h>

#include "base/half.h"
#include "base/version.h"
#include "cache/internal.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "row hashes are of little-endian bytes: swap them here before this is built on a big-endian machine"
#endif

enum { CHUNK_BYTES = 256 << 10 };

void cache_table_free(cache_table *table) {
  free(table->key);
  free(table->row_hash);
  free(table->status);
  free(table->offset);
  free(table->configuration);
  free(table->attributes);
  memset(table, 0, sizeof *table);
}

void cache_scratch_free(cache_scratch *scratch) {
  free(scratch->image);
  free(scratch->features);
  memset(scratch, 0, sizeof *scratch);
}

ser_hash cache_decoder(const char *attributes) {
  ser_hash hash = {{0}};
  json_t *members = json_loads(attributes, 0, NULL);
  const char *decoder = json_string_value(json_object_get(members, "decoder"));
  if (decoder) hash = ser_hash_bytes(decoder, strlen(decoder));
  json_decref(members);
  return hash;
}

bool cache_is_half(const char *attributes) {
  json_t *members = attributes ? json_loads(attributes, 0, NULL) : NULL;
  const char *stored = json_string_value(json_object_get(members, "stored"));
  bool half = stored && !strcmp(stored, "float16");
  json_decref(members);
  return half;
}

int64_t cache_table_check(const cache_table *table) {
  for (int64_t i = 0; i < table->count; i++) {
    size_t rows = (size_t)(table->offset[i + 1] - table->offset[i]), columns = (size_t)table->columns;
    ser_hash hash =
        ser_hash_bytes(rows ? table->features + table->offset[i] * columns : NULL, rows * columns * sizeof(float));
    if (ser_hash_compare(&hash, &table->row_hash[i]) != 0) return i;
  }
  return -1;
}

/* HDF5 keeps an error stack for each thread and prints it unless told not to: errors are told in our own words. */
static void silence(void) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* As numpy has it: 5 bits of exponent, 10 of fraction. */
static hid_t half_type(void) {
  hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  if (type < 0) return -1;
  if (H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 && H5Tset_ebias(type, 15) >= 0)
    return type;
  H5Tclose(type);
  return -1;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* A UTF-8 text that h5py reads as str. */
static bool put_text(hid_t at, const char *name, const char *text) {
  hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attribute = -1;
  bool good = type >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
  if (good) attribute = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  good = good && attribute >= 0 && H5Awrite(attribute, type, &text) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  return good;
}

static bool put_number(hid_t at, const char *name, const json_t *value) {
  bool whole = json_is_integer(value);
  int64_t integer = json_integer_value(value);
  double real = json_real_value(value);
  hid_t space = H5Screate(H5S_SCALAR);
  hid_t attribute = H5Acreate2(at, name, whole ? H5T_STD_I64LE : H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
  bool good = attribute >= 0 && (whole ? H5Awrite(attribute, H5T_NATIVE_INT64, &integer)
                                       : H5Awrite(attribute, H5T_NATIVE_DOUBLE, &real)) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  if (space >= 0) H5Sclose(space);
  return good;
}

/* The names of the dimensions as HDF5's dimension scales have them: h5py shows them as dataset.dims[i].label. */
static bool put_labels(hid_t dataset, const char *const labels[2]) {
  hsize_t two = 2;
  hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &two, NULL), attribute = -1;
  bool good = type >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0;
  if (good) attribute = H5Acreate2(dataset, "DIMENSION_LABELS", type, space, H5P_DEFAULT, H5P_DEFAULT);
  good = good && attribute >= 0 && H5Awrite(attribute, type, labels) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  return good;
}

/* Every member of the attributes as an attribute of its own, and their text whole for what rewrites shards. */
static bool put_attributes(hid_t file, const cache_table *table) {
  unsigned major = 0, minor = 0, release = 0;
  char version[64];
  H5get_libversion(&major, &minor, &release);
  snprintf(version, sizeof version, "%u.%u.%u", major, minor, release);
  if (!put_text(file, "format", "serenade-shard 1") || !put_text(file, "configuration", table->configuration) ||
      !put_text(file, "attributes", table->attributes) || !put_text(file, "hdf5", version))
    return false;
  json_t *members = json_loads(table->attributes, 0, NULL);
  const char *name;
  json_t *value;
  bool good = json_is_object(members);
  json_object_foreach(members, name, value) {
    if (json_is_string(value))
      good = good && put_text(file, name, json_string_value(value));
    else if (json_is_number(value))
      good = good && put_number(file, name, value);
  }
  json_decref(members);
  return good;
}

/* A dataset of rank 1 or 2 (columns > 0); chunk_rows > 0 makes it chunked. Object times are left out, so that the same
 * table gives the same bytes. */
static hid_t put_dataset(hid_t file, const char *name, hid_t stored, hid_t native, int64_t rows, int64_t columns,
                         int64_t chunk_rows, const void *data) {
  hsize_t sizes[2] = {(hsize_t)rows, (hsize_t)columns}, chunk[2] = {(hsize_t)chunk_rows, (hsize_t)columns};
  int rank = columns > 0 ? 2 : 1;
  hid_t space = H5Screate_simple(rank, sizes, NULL), creation = H5Pcreate(H5P_DATASET_CREATE), dataset = -1;
  bool good = space >= 0 && creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0;
  if (good && chunk_rows > 0)
    good = H5Pset_chunk(creation, rank, chunk) >= 0 && H5Pset_fill_time(creation, H5D_FILL_TIME_ALLOC) >= 0;
  if (good) dataset = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  if (dataset >= 0 && rows > 0 && H5Dwrite(dataset, native, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    H5Dclose(dataset);
    dataset = -1;
  }
  if (creation >= 0) H5Pclose(creation);
  if (space >= 0) H5Sclose(space);
  return dataset;
}

static bool put_plain(hid_t file, const char *name, hid_t stored, hid_t native, int64_t rows, int64_t columns,
                      const void *data) {
  hid_t dataset = put_dataset(file, name, stored, native, rows, columns, 0, data);
  return dataset >= 0 && H5Dclose(dataset) >= 0;
}

static hid_t put_halves(hid_t file, const float *features, int64_t rows, int64_t columns, int64_t chunk) {
  hid_t type = half_type();
  size_t count = (size_t)(rows * columns);
  uint16_t *halves = ser_alloc((count + 1) * sizeof *halves);
  for (size_t i = 0; i < count; i++) halves[i] = ser_to_half(features[i]);
  hid_t dataset = type >= 0 ? put_dataset(file, "features", type, type, rows, columns, chunk, halves) : -1;
  free(halves);
  if (type >= 0) H5Tclose(type);
  return dataset;
}

static bool put_features(hid_t file, const cache_table *table) {
  int64_t rows = (int64_t)table->offset[table->count];
  int64_t most = CHUNK_BYTES / (int64_t)sizeof(float) / table->columns; /* rows of a chunk */
  if (most < 1) most = 1;
  int64_t chunks = (rows + most - 1) / most;
  int64_t chunk = chunks > 0 ? (rows + chunks - 1) / chunks : 1; /* even chunks: little is lost behind the last row */
  hid_t dataset = cache_is_half(table->attributes) ? put_halves(file, table->features, rows, table->columns, chunk)
                                                   : put_dataset(file, "features", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT,
                                                                 rows, table->columns, chunk, table->features);
  bool good = dataset >= 0 && put_labels(dataset, (const char *const[2]){"frame", "coefficient"});
  return dataset >= 0 && H5Dclose(dataset) >= 0 && good;
}

static bool put_table(hid_t file, const cache_table *table) {
  return put_attributes(file, table) &&
         put_plain(file, "key", H5T_STD_U8LE, H5T_NATIVE_UINT8, table->count, 16, table->key) &&
         put_plain(file, "row_hash", H5T_STD_U8LE, H5T_NATIVE_UINT8, table->count, 16, table->row_hash) &&
         put_plain(file, "status", H5T_STD_U8LE, H5T_NATIVE_UINT8, table->count, 0, table->status) &&
         put_plain(file, "offset", H5T_STD_U64LE, H5T_NATIVE_UINT64, table->count + 1, 0, table->offset) &&
         put_features(file, table);
}

ser_status shard_encode(char **image, size_t *size, const cache_table *table, ser_error *err) {
  silence();
  ser_status status = SER_FAILED;
  ssize_t bytes = -1;
  hid_t file = -1, creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
  *image = NULL;
  if (creation < 0 || access < 0 || H5Pset_obj_track_times(creation, false) < 0) goto done;
  if (H5Pset_fapl_core(access, 4 << 20, false) < 0) goto done;
  file = H5Fcreate("serenade-pending-shard", H5F_ACC_TRUNC, creation, access);
  if (file < 0 || !put_table(file, table) || H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) goto done;
  bytes = H5Fget_file_image(file, NULL, 0);
  if (bytes <= 0) goto done;
  *image = ser_alloc((size_t)bytes);
  *size = (size_t)bytes;
  if (H5Fget_file_image(file, *image, *size) == bytes) status = SER_OK;
done:
  if (file >= 0) H5Fclose(file);
  if (access >= 0) H5Pclose(access);
  if (creation >= 0) H5Pclose(creation);
  if (status == SER_OK) return SER_OK;
  free(*image);
  *image = NULL;
  return ser_fail(err, SER_FAILED, "HDF5 could not build a shard of %lld clips in memory; is memory short?",
                  (long long)table->count);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* The core driver would copy an image twice: these callbacks hand it ours, which outlives the file. */
static void *image_ours(size_t size, H5FD_file_image_op_t op, void *image) {
  (void)size;
  (void)op;
  return image;
}
static void *image_no_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op, void *image) {
  (void)from;
  (void)size;
  (void)op;
  (void)image;
  return to;
}
static void *image_no_growth(void *at, size_t size, H5FD_file_image_op_t op, void *image) {
  (void)at;
  (void)size;
  (void)op;
  (void)image;
  return NULL;
}
static herr_t image_keep(void *at, H5FD_file_image_op_t op, void *image) {
  (void)at;
  (void)op;
  (void)image;
  return 0;
}
static void *same(void *image) {
  return image;
}
static herr_t keep(void *image) {
  (void)image;
  return 0;
}

static hid_t open_image(char *image, size_t size) {
  H5FD_file_image_callbacks_t calls = {image_ours, image_no_copy, image_no_growth, image_keep, same, keep, image};
  hid_t file = -1, access = H5Pcreate(H5P_FILE_ACCESS);
  if (access >= 0 && H5Pset_fapl_core(access, 4 << 20, false) >= 0 &&
      H5Pset_file_image_callbacks(access, &calls) >= 0 && H5Pset_file_image(access, image, size) >= 0)
    file = H5Fopen("serenade-shard", H5F_ACC_RDONLY, access);
  if (access >= 0) H5Pclose(access);
  return file;
}

static char *get_text(hid_t file, const char *name) {
  char *text = NULL, *read = NULL;
  hid_t attribute = H5Aopen(file, name, H5P_DEFAULT), type = -1, memory = -1, space = -1;
  if (attribute < 0) return NULL;
  type = H5Aget_type(attribute);
  space = H5Aget_space(attribute);
  memory = H5Tcopy(H5T_C_S1);
  if (type >= 0 && memory >= 0 && space >= 0 && H5Tis_variable_str(type) > 0 &&
      H5Sget_simple_extent_npoints(space) == 1 && H5Tset_size(memory, H5T_VARIABLE) >= 0 &&
      H5Tset_cset(memory, H5Tget_cset(type)) >= 0 && H5Aread(attribute, memory, &read) >= 0 && read) {
    text = ser_strdup(read);
    H5free_memory(read);
  }
  if (memory >= 0) H5Tclose(memory);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  H5Aclose(attribute);
  return text;
}

/* Opens a dataset of the type's class and size and gives its shape (columns 0 for rank 1). Data outside the image
 * (external files, virtual datasets) and filters are refused: such bytes are not under the shard's hash. */
static hid_t get_dataset(int64_t *rows, int64_t *columns, hid_t file, const char *name, hid_t stored) {
  hsize_t sizes[2] = {0, 0};
  hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = -1, type = -1, creation = -1;
  if (dataset < 0) return -1;
  space = H5Dget_space(dataset);
  type = H5Dget_type(dataset);
  creation = H5Dget_create_plist(dataset);
  bool good = space >= 0 && type >= 0 && creation >= 0 && H5Tequal(type, stored) > 0;
  if (good) {
    H5D_layout_t layout = H5Pget_layout(creation);
    int rank = H5Sget_simple_extent_ndims(space);
    good = (layout == H5D_CHUNKED || layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) &&
           H5Pget_external_count(creation) == 0 && H5Pget_nfilters(creation) == 0 && (rank == 1 || rank == 2) &&
           H5Sget_simple_extent_dims(space, sizes, NULL) == rank && sizes[0] < INT64_MAX && sizes[1] < INT32_MAX;
    *rows = (int64_t)sizes[0];
    *columns = rank == 2 ? (int64_t)sizes[1] : 0;
  }
  if (creation >= 0) H5Pclose(creation);
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  if (good) return dataset;
  H5Dclose(dataset);
  return -1;
}

/* Reads a whole dataset of the shape [rows][columns] (columns 0: rank 1) into memory of that size. */
static bool read_array(void *data, hid_t file, const char *name, hid_t stored, hid_t native, int64_t rows,
                       int64_t columns) {
  int64_t got_rows, got_columns;
  hid_t dataset = get_dataset(&got_rows, &got_columns, file, name, stored);
  bool good = dataset >= 0 && got_rows == rows && got_columns == columns;
  if (good && rows > 0) good = H5Dread(dataset, native, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
  if (dataset >= 0) H5Dclose(dataset);
  return good;
}

/* The same in fresh memory, no larger than the image that the dataset comes from; NULL where it does not fit. */
static void *get_array(hid_t file, const char *name, hid_t stored, hid_t native, int64_t rows, int64_t columns,
                       size_t image_size) {
  size_t row_bytes = H5Tget_size(native) * (size_t)(columns ? columns : 1);
  if ((size_t)rows > image_size / row_bytes) return NULL;
  void *data = ser_alloc((size_t)rows * row_bytes);
  if (read_array(data, file, name, stored, native, rows, columns)) return data;
  free(data);
  return NULL;
}

static bool get_features(cache_table *table, cache_scratch *scratch, hid_t file, int64_t rows) {
  size_t floats = (size_t)rows * (size_t)table->columns;
  if (floats > scratch->features_capacity) {
    free(scratch->features);
    scratch->features_capacity = floats + floats / 8;
    scratch->features = ser_alloc(scratch->features_capacity * sizeof(float));
  }
  if (!scratch->features) scratch->features = ser_alloc(1);
  table->features = scratch->features;
  if (!cache_is_half(table->attributes))
    return read_array(table->features, file, "features", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, rows, table->columns);
  /* Into the last half of the memory, and from there, in order, to what they are. */
  hid_t type = half_type();
  char *halves = (char *)(table->features + floats) - floats * sizeof(uint16_t);
  bool good = type >= 0 && read_array(halves, file, "features", type, type, rows, table->columns);
  for (size_t i = 0; i < floats && good; i++) {
    uint16_t half;
    memcpy(&half, halves + i * sizeof half, sizeof half);
    table->features[i] = ser_from_half(half);
  }
  if (type >= 0) H5Tclose(type);
  return good;
}

/* What must hold of the numbers, whoever wrote them. */
static const char *check_table(const cache_table *table, int64_t rows) {
  if (table->offset[0] != 0 || table->offset[table->count] != (uint64_t)rows) return "its offsets do not fit its rows";
  for (int64_t i = 0; i < table->count; i++) {
    if (table->offset[i + 1] < table->offset[i] || table->offset[i + 1] > (uint64_t)rows)
      return "its offsets do not rise";
    if (table->offset[i + 1] - table->offset[i] > UINT32_MAX) return "a clip has too many frames";
    if (table->status[i] > SER_ENTRY_REFUSED) return "it holds an unknown status";
    if (table->status[i] != SER_ENTRY_OK && table->offset[i + 1] != table->offset[i])
      return "a refused clip has features";
  }
  return NULL;
}

static const char *read_table(cache_table *table, cache_scratch *scratch, hid_t file, bool with_features) {
  size_t size = scratch->size;
  table->configuration = get_text(file, "configuration");
  table->attributes = get_text(file, "attributes");
  if (!table->configuration || !table->attributes) return "it does not say its configuration";
  bool half = cache_is_half(table->attributes);
  int64_t rows, columns;
  hid_t type = half ? half_type() : H5Tcopy(H5T_IEEE_F32LE);
  hid_t dataset = type >= 0 ? get_dataset(&rows, &columns, file, "features", type) : -1;
  if (type >= 0) H5Tclose(type);
  if (dataset >= 0) H5Dclose(dataset);
  if (dataset < 0 || columns < 1) return "it has no table of features";
  if ((size_t)rows > size / (half ? sizeof(uint16_t) : sizeof(float)) / (size_t)columns)
    return "its features do not fit its size";
  table->columns = columns;
  int64_t count, width;
  dataset = get_dataset(&count, &width, file, "key", H5T_STD_U8LE);
  if (dataset < 0 || width != 16) {
    if (dataset >= 0) H5Dclose(dataset);
    return "it has no table of keys";
  }
  H5Dclose(dataset);
  table->count = count;
  table->key = get_array(file, "key", H5T_STD_U8LE, H5T_NATIVE_UINT8, count, 16, size);
  table->row_hash = get_array(file, "row_hash", H5T_STD_U8LE, H5T_NATIVE_UINT8, count, 16, size);
  table->status = get_array(file, "status", H5T_STD_U8LE, H5T_NATIVE_UINT8, count, 0, size);
  table->offset = get_array(file, "offset", H5T_STD_U64LE, H5T_NATIVE_UINT64, count + 1, 0, size);
  if (!table->key || !table->row_hash || !table->status || !table->offset) return "its tables do not fit together";
  const char *problem = check_table(table, rows);
  if (problem || !with_features) return problem;
  return get_features(table, scratch, file, rows) ? NULL : "its features cannot be read";
}

ser_status shard_decode(cache_table *table, cache_scratch *scratch, bool with_features, ser_error *err) {
  silence();
  memset(table, 0, sizeof *table);
  hid_t file = open_image(scratch->image, scratch->size);
  if (file < 0) return ser_fail(err, SER_FAILED, "it is no HDF5 file");
  const char *problem = read_table(table, scratch, file, with_features);
  H5Fclose(file);
  if (!problem) return SER_OK;
  cache_table_free(table);
  return ser_fail(err, SER_FAILED, "%s", problem);
}
