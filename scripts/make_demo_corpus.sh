#!/usr/bin/env bash
# Makes a small corpus of acted speech with espeak-ng, in the layouts, names and sample rates of RAVDESS, CREMA-D, TESS
# and SAVEE: each emotion has its own prosody (pitch, range, speed, loudness), each speaker a voice. It shows that the
# program runs; what a model learns from it says nothing about people.
#
# Some things are amiss in it on purpose, as they are in the published corpora, for the audit to find: a recording that
# is there twice, one recording under two labels, a silent one, a misnamed one, a stereo one. None makes a file
# unusable, so that every command ends with 0.
#
# The same call makes the same bytes with the same espeak-ng and sox. Files that are there are left as they are.
# Usage: scripts/make_demo_corpus.sh DEST [--small]
#   DEST/RAVDESS DEST/CREMA-D DEST/TESS DEST/SAVEE; about 1000 clips, with --small about 250
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dest='' small=false
for word in "$@"; do
  case $word in
    --small) small=true ;;
    -*) dest='' && break ;;
    *) dest=$word ;;
  esac
done
if [[ -z $dest ]]; then
  echo "usage: make_demo_corpus.sh DEST [--small]" >&2
  exit 2
fi
install_missing demo
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

# emotion: pitch (0-99), range of the pitch, words a minute, amplitude
declare -A prosody=(
  [neutral]="45 45 160 60" [calm]="38 28 135 45" [happy]="66 85 185 72" [sad]="30 18 115 38"
  [angry]="58 70 205 95" [fearful]="84 35 215 55" [disgust]="22 65 130 66" [surprised]="92 98 165 80"
)
# A speaker's voice (a variant of espeak-ng's) and how far its pitch lies from the middle.
men=("en-us+m1 -6" "en-gb+m3 0" "en-us+m7 5" "en-gb-scotland+m2 -3" "en-us+m5 8" "en-gb+m8 -9")
women=("en-us+f1 4" "en-gb+f2 0" "en-us+f4 -4" "en-gb-scotland+f3 6" "en-us+f5 8" "en-gb+f5 -7")
words=(bite back bar base bath bean beg boat bone book bought burn cab calm came cause chain chair chalk chat)
sentences=(
  "IEO|It's eleven o'clock" "TIE|That is exactly what happened" "IOM|I'm on my way to the meeting"
  "IWW|I wonder what this is about" "TAI|The airplane is almost full" "MTI|Maybe tomorrow it will be cold"
)
lines=(
  "She had your dark suit in greasy wash water all year" "Don't ask me to carry an oily rag like that"
  "Will you tell me why" "The best way to learn is to solve extra problems" "Before Thursday's exam review every formula"
)

worklist=$(mktemp)
trap 'rm -f "$worklist"' EXIT
noise=12345
jitter() { # sets shift_by to a number in [-$1, $1]: the takes of a sentence differ, the same in every run
  noise=$(((noise * 1103515245 + 12345) & 0x7fffffff))
  shift_by=$((noise / 65536 % (2 * $1 + 1) - $1))
}
clip() { # FILE RATE "VOICE OFFSET" EMOTION STRENGTH TEXT
  local voice offset pitch range speed loud
  read -r voice offset <<<"$3"
  read -r pitch range speed loud <<<"${prosody[$4]}"
  if [[ $5 == strong ]]; then
    pitch=$((pitch + (pitch - 45) / 4))
    range=$((range + (range - 45) / 4))
    speed=$((speed + (speed - 160) / 4))
    loud=$((loud + 12))
  fi
  jitter 5
  pitch=$((pitch + offset + shift_by))
  jitter 8
  range=$((range + shift_by))
  jitter 10
  speed=$((speed + shift_by))
  jitter 4
  loud=$((loud + shift_by))
  pitch=$((pitch < 0 ? 0 : pitch > 99 ? 99 : pitch))
  range=$((range < 5 ? 5 : range))
  printf '%s\0' "$1|$2|$voice|$pitch|$range|$speed|$loud|$6" >>"$worklist"
}

make_clip() { # one entry of the work list
  local file rate voice pitch range speed loud text
  IFS='|' read -r file rate voice pitch range speed loud text <<<"$1"
  [[ -s $file ]] && return 0
  mkdir -p "${file%/*}"
  espeak-ng -m -v "$voice" -p "$pitch" -s "$speed" -a "$loud" -w "$file.speech.wav" \
    "<prosody range=\"$range\">$text</prosody>"
  sox -R "$file.speech.wav" -r "$rate" -b 16 "$file.part.wav" pad 0.15 0.2
  rm -f "$file.speech.wav"
  mv "$file.part.wav" "$file"
}
export -f make_clip

two() { printf '%02d' "$1"; }

# RAVDESS: MM-VC-EE-II-SS-RR-AA.wav, 48 kHz; odd actors are men.
codes=(neutral calm happy sad angry fearful disgust surprised)
actors=6 takes=2
if $small; then actors=3 takes=1; fi
for ((actor = 1; actor <= actors; actor++)); do
  if ((actor % 2)); then voice=${men[actor / 2]}; else voice=${women[actor / 2 - 1]}; fi
  for ((e = 0; e < 8; e++)); do
    for intensity in 1 2; do
      ((e == 0 && intensity == 2)) && continue
      for statement in 1 2; do
        text="Kids are talking by the door"
        ((statement == 2)) && text="Dogs are sitting by the door"
        for ((take = 1; take <= takes; take++)); do
          name=03-01-$(two $((e + 1)))-$(two $intensity)-$(two $statement)-$(two "$take")-$(two "$actor").wav
          strength=normal
          ((intensity == 2)) && strength=strong
          clip "$dest/RAVDESS/Actor_$(two "$actor")/$name" 48000 "$voice" "${codes[e]}" "$strength" "$text"
        done
      done
    done
  done
done

# CREMA-D: ACTOR_SENTENCE_EMOTION_LEVEL.wav, 16 kHz; the first sentence at three levels.
declare -A short=([neutral]=NEU [happy]=HAP [sad]=SAD [angry]=ANG [fearful]=FEA [disgust]=DIS)
six=(neutral happy sad angry fearful disgust)
actors=6 count=6
if $small; then actors=3 count=2; fi
for ((actor = 0; actor < actors; actor++)); do
  if ((actor % 2)); then voice=${women[(actor + 3) % 6]}; else voice=${men[(actor + 3) % 6]}; fi
  for ((s = 0; s < count; s++)); do
    for emotion in "${six[@]}"; do
      levels=(XX)
      ((s == 0)) && [[ $emotion != neutral ]] && levels=(LO MD HI)
      for level in "${levels[@]}"; do
        strength=normal
        [[ $level == HI ]] && strength=strong
        clip "$dest/CREMA-D/AudioWAV/$((1001 + actor))_${sentences[s]%%|*}_${short[$emotion]}_$level.wav" 16000 "$voice" \
          "$emotion" $strength "${sentences[s]#*|}"
      done
    done
  done
done

# TESS: OAF|YAF_word_emotion.wav, 24 414 Hz, in the folders of the widespread copy with their odd spellings.
declare -A oaf=([neutral]=OAF_neutral [happy]=OAF_happy [sad]=OAF_Sad [angry]=OAF_angry [fearful]=OAF_Fear
  [disgust]=OAF_disgust [surprised]=OAF_Pleasant_surprise)
declare -A yaf=([neutral]=YAF_neutral [happy]=YAF_happy [sad]=YAF_sad [angry]=YAF_angry [fearful]=YAF_fear
  [disgust]=YAF_disgust [surprised]=YAF_pleasant_surprised)
declare -A tess=([neutral]=neutral [happy]=happy [sad]=sad [angry]=angry [fearful]=fear [disgust]=disgust [surprised]=ps)
count=20
if $small; then count=5; fi
for emotion in neutral happy sad angry fearful disgust surprised; do
  for ((w = 0; w < count; w++)); do
    name=${words[w]}_${tess[$emotion]}.wav
    prefix=OAF
    [[ $name == bite_neutral.wav ]] && prefix=OA # as the published folder has it
    clip "$dest/TESS/${oaf[$emotion]}/${prefix}_$name" 24414 "en-us+f3 -8" "$emotion" normal "Say the word ${words[w]}"
    clip "$dest/TESS/${yaf[$emotion]}/YAF_$name" 24414 "en-us+f2 9" "$emotion" normal "Say the word ${words[w]}"
  done
done

# SAVEE: AudioData/SPEAKER/CODE+NUMBER.wav, 44.1 kHz.
declare -A savee=([neutral]=n [happy]=h [sad]=sa [angry]=a [fearful]=f [disgust]=d [surprised]=su)
count=5
if $small; then count=1; fi
voices=("${men[1]}" "${men[2]}" "${men[4]}" "${men[5]}")
speakers=(DC JE JK KL)
for ((k = 0; k < 4; k++)); do
  for emotion in neutral happy sad angry fearful disgust surprised; do
    n=$count
    [[ $emotion == neutral ]] && n=$((2 * count))
    for ((i = 1; i <= n; i++)); do
      clip "$dest/SAVEE/AudioData/${speakers[k]}/${savee[$emotion]}$(two "$i").wav" 44100 "${voices[k]}" "$emotion" \
        normal "${lines[(i - 1) % 5]}"
    done
  done
done

say "speaking $(tr -cd '\0' <"$worklist" | wc -c) clips with espeak-ng"
# shellcheck disable=SC2016
xargs -0 -a "$worklist" -P "$jobs" -I{} bash -euc 'make_clip "$1"' make_clip {}

# What is amiss on purpose; each of these stands in the published corpora too.
same() { cmp -s "$1" "$2" || cp "$1" "$2"; } # a file that is right keeps its time, so that nothing reads it again
folder=$dest/RAVDESS/Actor_01
same "$folder/03-01-03-01-02-01-01.wav" "$folder/03-01-03-01-01-01-01.wav"
stereo=$dest/RAVDESS/Actor_02/03-01-02-01-01-01-02.wav
if [[ $(soxi -c "$stereo") == 1 ]]; then
  sox -R "$stereo" -c 2 "$stereo.part.wav"
  mv "$stereo.part.wav" "$stereo"
fi
same "$dest/CREMA-D/AudioWAV/1003_TIE_NEU_XX.wav" "$dest/CREMA-D/AudioWAV/1003_TIE_HAP_XX.wav"
silent=$dest/CREMA-D/AudioWAV/1002_TIE_SAD_XX.wav
sox -R -n -r 16000 -b 16 -c 1 "$silent.part.wav" trim 0 1.8
same "$silent.part.wav" "$silent"
rm "$silent.part.wav"
find "$dest" -name '*.wav' | wc -l | sed "s|\$| recordings under $dest|"
