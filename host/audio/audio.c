/* Decoding through libsndfile by content, channel mean, resampling: librosa.load(path, sr=rate, mono=True). */
#include "audio/audio.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <sndfile.h>

#include "audio/container.h"
#include "audio/resample.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/memory.h"

enum {
  DETAIL = 256,
  BLOCK_SAMPLES = 1 << 12, /* of all channels in one block: it stays in the nearest caches */
  LOWEST_RATE = 1000,      /* Hz; below it and above the highest a header is taken for damaged */
  HIGHEST_RATE = 768000,
  TRUSTED_FRAMES = 1 << 24, /* room made at once on the word of a header */
  RULES = 1,                /* raised with every change of what is refused, here or by a feature's least length */
};

static const char *const reason_names[] = {
    [SER_REASON_NONE] = "",
    [SER_REASON_UNREADABLE] = "unreadable",
    [SER_REASON_TRUNCATED] = "truncated",
    [SER_REASON_LFS_POINTER] = "lfs_pointer",
    [SER_REASON_EMPTY] = "empty",
    [SER_REASON_NON_FINITE] = "non_finite",
    [SER_REASON_SILENT] = "silent",
    [SER_REASON_DUPLICATE] = "duplicate",
    [SER_REASON_LABEL_CONFLICT] = "label_conflict",
    [SER_REASON_CLIPPED] = "clipped",
    [SER_REASON_SPEAKER_CONFLICT] = "speaker_conflict",
    [SER_REASON_TOO_SHORT] = "too_short",
};

const char *ser_reason_name(ser_reason reason) {
  return reason_names[reason];
}

bool ser_reason_parse(ser_reason *reason, const char *name) {
  for (int i = 0; i <= SER_REASON_TOO_SHORT; i++) {
    if (strcmp(reason_names[i], name)) continue;
    *reason = (ser_reason)i;
    return true;
  }
  return false;
}

/* ---- libsndfile on our own bytes: no path reaches it, so a suffix has no say ---- */

static sf_count_t io_size(void *context) {
  return ((byte_source *)context)->size;
}

static sf_count_t io_seek(sf_count_t offset, int whence, void *context) {
  byte_source *source = context;
  sf_count_t base = whence == SEEK_CUR ? source->position : whence == SEEK_END ? source->size : 0;
  if (base + offset < 0) return -1;
  return source->position = base + offset;
}

static sf_count_t io_read(void *to, sf_count_t count, void *context) {
  byte_source *source = context;
  int64_t got = byte_source_read(source, to, source->position, count);
  source->position += got;
  return got;
}

static sf_count_t io_write(const void *from, sf_count_t count, void *context) {
  (void)from;
  (void)count;
  (void)context;
  return 0;
}

static sf_count_t io_tell(void *context) {
  return ((byte_source *)context)->position;
}

/* An open recording. */
typedef struct {
  byte_source bytes;
  SNDFILE *file;
  ser_audio_info info;
} recording;

static void recording_close(recording *rec) {
  if (rec->file) sf_close(rec->file);
  rec->file = NULL;
  byte_source_close(&rec->bytes);
}

static void name_container(ser_audio_info *info, int format) {
  static const struct {
    int format;
    const char *name;
  } names[] = {{SF_FORMAT_WAV, "WAV"},   {SF_FORMAT_WAVEX, "WAV"}, {SF_FORMAT_AIFF, "AIFF"}, {SF_FORMAT_FLAC, "FLAC"},
               {SF_FORMAT_OGG, "OGG"},   {SF_FORMAT_AU, "AU"},     {SF_FORMAT_W64, "W64"},   {SF_FORMAT_RF64, "RF64"},
               {SF_FORMAT_CAF, "CAF"},   {SF_FORMAT_NIST, "NIST"}, {SF_FORMAT_VOC, "VOC"},   {SF_FORMAT_SVX, "IFF"},
               {SF_FORMAT_IRCAM, "SF"},  {SF_FORMAT_PVF, "PVF"},   {SF_FORMAT_PAF, "PAF"},   {SF_FORMAT_MPEG, "MPEG"},
               {SF_FORMAT_MAT4, "MAT4"}, {SF_FORMAT_MAT5, "MAT5"}, {SF_FORMAT_AVR, "AVR"},   {SF_FORMAT_HTK, "HTK"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].format == (format & SF_FORMAT_TYPEMASK)) snprintf(info->container, 32, "%s", names[i].name);
  if (!info->container[0]) snprintf(info->container, 32, "0x%x", (unsigned)(format & SF_FORMAT_TYPEMASK));
}

/* Why the file could not be opened, by errno, and what to do. */
static void tell_unopened(char *detail, int number) {
  const char *cure = number == ENOENT || number == ENOTDIR  ? "mend its path, or take it out"
                     : number == EACCES || number == EPERM  ? "make it readable, or take it out"
                     : number == EINVAL || number == EISDIR ? "give a file in its place, or take it out"
                                                            : "get the file anew, or take it out";
  snprintf(detail, DETAIL, "cannot open: %s; %s", number == EINVAL ? "it is a pipe or a device" : strerror(number),
           cure);
}

/* Opens the recording. Where the file cannot be used, rec->file is NULL and the reason is given. */
static ser_reason recording_open(recording *rec, char *detail, const ser_audio_source *source) {
  static SF_VIRTUAL_IO io = {io_size, io_seek, io_read, io_write, io_tell};
  memset(rec, 0, sizeof *rec);
  detail[0] = 0;
  if (!byte_source_open(&rec->bytes, source)) {
    tell_unopened(detail, errno);
    rec->info.passing = true;
    return SER_REASON_UNREADABLE;
  }
  ser_reason reason = container_check(detail, &rec->bytes);
  if (reason != SER_REASON_NONE) return reason;

  /* libsndfile keeps the reason of a failed open in one place for the whole process. */
  static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
  SF_INFO sf = {0};
  pthread_mutex_lock(&opening);
  rec->file = sf_open_virtual(&io, SFM_READ, &sf, &rec->bytes);
  if (!rec->file) {
    const char *why = sf_strerror(NULL);
    snprintf(detail, DETAIL, "not a recording that libsndfile can open (%.*s); get the file anew, or take it out",
             (int)strcspn(why, ".\n"), why);
  }
  pthread_mutex_unlock(&opening);
  if (!rec->file) return SER_REASON_UNREADABLE;
  rec->info = (ser_audio_info){.rate = sf.samplerate, .channels = sf.channels, .frames = sf.frames};
  if (sf.frames < 0 || sf.frames == SF_COUNT_MAX) rec->info.frames = 0;
  name_container(&rec->info, sf.format);
  if (sf.samplerate < LOWEST_RATE || sf.samplerate > HIGHEST_RATE) {
    snprintf(detail, DETAIL,
             "its header says %d Hz; rates from %d to %d Hz can be used; get the file anew, or take it out",
             sf.samplerate, LOWEST_RATE, HIGHEST_RATE);
    return SER_REASON_UNREADABLE;
  }
  if (sf.channels < 1) {
    snprintf(detail, DETAIL, "its header says %d channels; get the file anew, or take it out", sf.channels);
    return SER_REASON_UNREADABLE;
  }
  return SER_REASON_NONE;
}

/* Where a read failed, what was concluded from the bytes that came says nothing of the recording. */
static ser_reason judge_reading(ser_reason reason, char *detail, recording *rec) {
  if (!rec->bytes.problem) return reason;
  rec->info.passing = true;
  snprintf(detail, DETAIL, "cannot be read: %s; try again when its disk or network answers",
           strerror(rec->bytes.problem));
  return SER_REASON_UNREADABLE;
}

static ser_reason no_samples(char *detail) {
  snprintf(detail, DETAIL, "holds no samples; get the file anew, or take it out");
  return SER_REASON_EMPTY;
}

ser_status ser_audio_probe(ser_audio_info *info, ser_reason *reason, char *detail, const char *path, ser_error *err) {
  (void)err;
  char unused[DETAIL];
  if (!detail) detail = unused;
  recording rec;
  *reason = recording_open(&rec, detail, &(ser_audio_source){.path = path});
  if (*reason == SER_REASON_NONE && rec.info.frames == 0) {
    float *frame = ser_alloc_zero((size_t)rec.info.channels, sizeof *frame);
    if (sf_readf_float(rec.file, frame, 1) < 1) *reason = no_samples(detail);
    free(frame);
  }
  *reason = judge_reading(*reason, detail, &rec);
  *info = rec.info;
  recording_close(&rec);
  return SER_OK;
}

/* mono[frames] = mean over channels of interleaved[frames][channels], summed in their order as numpy does. Returns the
 * first frame that is not finite, or frames. */
static int64_t average(float *mono, const float *interleaved, int64_t frames, int32_t channels) {
  uint32_t largest = 0;
  if (channels == 1) {
    memcpy(mono, interleaved, (size_t)frames * sizeof *mono);
  } else if (channels == 2) {
    for (int64_t i = 0; i < frames; i++) mono[i] = (interleaved[2 * i] + interleaved[2 * i + 1]) / 2;
  } else {
    for (int64_t i = 0; i < frames; i++) {
      float sum = interleaved[i * channels];
      for (int32_t c = 1; c < channels; c++) sum += interleaved[i * channels + c];
      mono[i] = sum / (float)channels;
    }
  }
  for (int64_t i = 0; i < frames; i++) {
    uint32_t bits;
    memcpy(&bits, mono + i, sizeof bits);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  int64_t fine = largest < 0x7f800000u ? frames : 0;
  while (fine < frames && isfinite(mono[fine])) fine++;
  return fine;
}

typedef struct {
  ser_block_fn each;
  void *context;
  bool keep;
  resampler stream;
  sample_buffer out;
  int64_t frames; /* decoded so far */
} decoding;

/* Runs the blocks through; the reason tells where a block made the clip unusable. */
static ser_status decode_blocks(decoding *job, ser_reason *reason, char *detail, recording *rec, ser_error *err) {
  int32_t channels = rec->info.channels;
  int64_t block = BLOCK_SAMPLES / channels > 64 ? BLOCK_SAMPLES / channels : 64;
  float *interleaved = ser_alloc((size_t)(block * channels) * sizeof *interleaved);
  float *mono = ser_alloc((size_t)block * sizeof *mono);
  ser_status status = SER_OK;
  for (;;) {
    SER_TRY_DONE(ser_interrupt_check(err));
    int64_t got = sf_readf_float(rec->file, interleaved, block);
    if (got <= 0) break;
    if (job->each) job->each(job->context, interleaved, got, channels);
    int64_t fine = average(mono, interleaved, got, channels);
    if (fine < got) {
      snprintf(detail, DETAIL, "holds samples that are not finite numbers, the first after %.3f s; export it again",
               (double)(job->frames + fine) / rec->info.rate);
      *reason = SER_REASON_NON_FINITE;
      break;
    }
    job->frames += got;
    if (job->keep) SER_TRY_DONE(resampler_push(&job->stream, &job->out, mono, got, err));
  }
done:
  free(interleaved);
  free(mono);
  return status;
}

/* Fewer frames than promised: cut, where the file ended too early; else damaged on the way. */
static ser_reason judge_end(char *detail, const decoding *job, recording *rec) {
  int problem = sf_error(rec->file);
  bool at_end = rec->bytes.furthest >= rec->bytes.size;
  if (job->frames < rec->info.frames) {
    snprintf(detail, DETAIL, "%s: %lld of %lld frames could be decoded; copy it again",
             at_end ? "cut short" : "damaged", (long long)job->frames, (long long)rec->info.frames);
    return at_end ? SER_REASON_TRUNCATED : SER_REASON_UNREADABLE;
  }
  if (problem != SF_ERR_NO_ERROR) {
    const char *why = sf_strerror(rec->file);
    snprintf(detail, DETAIL, "damaged: libsndfile says: %.*s; copy it again", (int)strcspn(why, ".\n"), why);
    return SER_REASON_UNREADABLE;
  }
  return job->frames == 0 ? no_samples(detail) : SER_REASON_NONE;
}

ser_status ser_audio_decode(ser_clip *clip, ser_reason *reason, char *detail, const ser_audio_source *source,
                            int32_t rate, ser_block_fn each, void *context, ser_error *err) {
  char unused[DETAIL];
  if (!detail) detail = unused;
  memset(clip, 0, sizeof *clip);
  ser_status status = SER_OK;
  decoding job = {.each = each, .context = context, .keep = rate >= 0};
  recording rec;
  *reason = judge_reading(recording_open(&rec, detail, source), detail, &rec);
  if (*reason != SER_REASON_NONE) goto done;
  if (rate <= 0) rate = rec.info.rate;
  SER_TRY_DONE(resampler_open(&job.stream, rec.info.rate, rate, err));
  if (job.keep && rec.info.frames) {
    int64_t expected = rec.info.frames < TRUSTED_FRAMES ? rec.info.frames : TRUSTED_FRAMES;
    sample_buffer_reserve(&job.out, resampled_count(expected, rec.info.rate, rate) + 64);
  }
  SER_TRY_DONE(decode_blocks(&job, reason, detail, &rec, err));
  if (*reason == SER_REASON_NONE) *reason = judge_end(detail, &job, &rec);
  *reason = judge_reading(*reason, detail, &rec);
  if (*reason != SER_REASON_NONE) goto done;
  if (job.keep) SER_TRY_DONE(resampler_finish(&job.stream, &job.out, err));
  rec.info.frames = job.frames;
  clip->samples = job.out.data;
  clip->count = job.out.count;
  clip->rate = rate;
  job.out.data = NULL;
done:
  clip->info = rec.info;
  resampler_close(&job.stream);
  recording_close(&rec);
  free(job.out.data);
  return status;
}

void ser_audio_libraries(char text[SER_AUDIO_LIBRARIES]) {
  snprintf(text, SER_AUDIO_LIBRARIES, "%s %s", sf_version_string(), resampler_version());
}

void ser_audio_decoder(char text[SER_AUDIO_DECODER]) {
  snprintf(text, SER_AUDIO_DECODER, "%s rules %d", sf_version_string(), RULES);
}

bool ser_audio_named(const char *path) {
  static const char *const suffixes[] = {"wav", "wave", "flac", "aif", "aiff", "aifc", "ogg", "oga",  "opus", "mp3",
                                         "au",  "snd",  "caf",  "w64", "rf64", "bwf",  "sph", "nist", "voc"};
  const char *name = ser_path_name(path), *dot = strrchr(name, '.');
  if (!dot || name[0] == '.') return false;
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
    if (!strcasecmp(dot + 1, suffixes[i])) return true;
  return false;
}

void ser_clip_free(ser_clip *clip) {
  free(clip->samples);
  memset(clip, 0, sizeof *clip);
}
