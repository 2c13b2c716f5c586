
"use strict";
// What comes from outside (names, words, messages) enters the page as text only, never as html.
const $ = (id) => document.getElementById(id);
const SURE = 0.8, UNSURE = 0.5;  // scores below are shown as perhaps, and as doubtful
const PAUSE_SECONDS = 1, SEGMENT_SECONDS = 15;  // where live words are divided
let limits = { upload_bytes: Infinity, recording_seconds: Infinity };
let transcript = null;  // { filename, language, duration, segments: [{ start, end, text, score, words }] }
let words = [];  // of all segments: { start, end, element }
let now = -1;  // index of the word that is played
let cancel = null;  // ends what is going on
let translates = null;  // { model, from, into, text, speech, streams }, where the server translates

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const clock = (seconds) => {
  const whole = Math.floor(seconds), hours = Math.floor(whole / 3600);
  const rest = `${Math.floor(whole / 60) % 60}:${String(whole % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${rest.padStart(5, "0")}` : rest;
};
const duration = (seconds) =>
  seconds < 7200 ? `${Math.round(seconds / 60)} minutes` : `${Math.round(seconds / 360) / 10} hours`;
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

// ---- what is going on

function begin(title, { live = false } = {}) {
  hideError();
  transcript = { filename: title, language: null, duration: 0, segments: [] };
  words = [];
  now = -1;
  $("transcript").replaceChildren();
  $("title").textContent = title;
  $("facts").textContent = "";
  const hidden = ["player", "unplayable", "legend", "downloads", "recording", "spoken-player", "speech", "original-label", "hear"];
  for (const id of hidden) $(id).hidden = true;
  $("result").hidden = true;
  $("work").hidden = false;
  $("progress").hidden = live;
  $("live").hidden = !live;
  $("stop").textContent = live ? "Stop" : "Cancel";
  $("stop").disabled = false;
  for (const id of ["choose", "speak"]) $(id).disabled = true;
  $("source").hidden = live;  // the words are what is looked at
}

function end({ complete = false } = {}) {
  cancel = null;
  $("work").hidden = true;
  $("source").hidden = false;
  for (const id of ["choose", "speak"]) $(id).disabled = false;
  if (!transcript.segments.length && complete) {
    $("result").hidden = false;
    $("transcript").replaceChildren(element("p", "nothing", "No speech was heard."));
  }
  if (!transcript.segments.length) return;
  const scores = transcript.segments.flatMap((segment) => (segment.words ?? []).map((word) => word.score));
  const facts = isTranslation()
    ? [`${transcript.source_language ?? "?"} → ${transcript.language ?? "?"}`]
    : [
      `${scores.length} word${scores.length === 1 ? "" : "s"}`,
      scores.length ? `${Math.round(100 * mean(scores))} % sure on average` : "",
      transcript.language ?? "",
    ];
  $("facts").textContent = [clock(transcript.duration), ...facts].filter(Boolean).join(" · ");
  for (const button of $("downloads").querySelectorAll("[data-format], #copy")) {
    button.hidden = isTranslation() && !translates.text && button.dataset.format !== "json";
  }
  $("downloads").hidden = false;
}

function status(text, share) {
  if ($("status").textContent !== text) $("status").textContent = text;
  if (share === undefined) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

function showError(message) {
  $("error").replaceChildren(element("b", "", "That did not work: "), message);
  $("error").hidden = false;
}

function hideError() {
  $("error").hidden = true;
}

// ---- words

function addLine(time) {
  const row = element("div", "segment");
  const line = element("p");
  line.dir = "auto";
  row.append(time, line);
  $("transcript").append(row);
  $("result").hidden = false;
  return line;
}

function addSegment(segment) {
  const time = element("button", "time", clock(segment.start));
  time.type = "button";
  time.setAttribute("aria-label", `play from ${clock(segment.start)}`);
  time.addEventListener("click", () => play(segment.start));
  const line = addLine(time);
  $("legend").hidden = isTranslation();
  transcript.segments.push(segment);
  if (segment.words?.length) segment.words.forEach((word) => addWord(line, word));
  else line.textContent = segment.text;
  return line;
}

function addWord(line, word) {
  const percent = Math.round(100 * word.score);
  const kind = word.score >= SURE ? "sure" : word.score >= UNSURE ? "unsure" : "doubtful";
  const shown = element("span", `word ${kind}`, word.word);
  shown.title = `${percent} % sure, at ${clock(word.start)}`;
  shown.setAttribute("role", "button");
  shown.setAttribute("aria-label", kind === "sure" ? word.word : `${word.word}, ${percent} percent sure`);
  shown.tabIndex = words.length ? -1 : 0;  // one stop for all of them; arrow keys move among them
  shown.dataset.index = words.length;
  words.push({ start: word.start, end: word.end, element: shown });
  if (line.childNodes.length) line.append(" ");
  line.append(shown);
}

function play(seconds) {
  if ($("player").hidden) return;
  $("audio").currentTime = seconds;
  $("audio").play().catch(() => {});  // the player shows why
}

function follow() {
  const seconds = $("audio").currentTime + 0.02;
  let low = 0, high = words.length;  // the last word that began
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  const found = low && seconds < words[low - 1].end + 0.3 ? low - 1 : -1;
  if (found !== now) {
    if (words[now]) words[now].element.classList.remove("now");
    if (words[found]) words[found].element.classList.add("now");
    now = found;
  }
  if (!$("audio").paused) requestAnimationFrame(follow);
}

function giveAudio(blob, name) {
  URL.revokeObjectURL($("audio").src);
  $("audio").src = URL.createObjectURL(blob);
  $("player").hidden = false;
  $("audio").hidden = false;
  if (name) giveFile("recording", blob, name);
}

function giveFile(id, blob, name) {
  URL.revokeObjectURL($(id).href);
  $(id).href = URL.createObjectURL(blob);
  $(id).download = name;
  $(id).hidden = false;
}

// ---- a file

function takeFile(file) {
  if (cancel) return showError("wait until the recording before is done, or cancel it.");
  begin(file.name);
  if (file.size > limits.upload_bytes) {
    end();
    $("result").hidden = true;
    return showError(`${file.name} has ${megabytes(file.size)}; this server takes up to ${megabytes(limits.upload_bytes)}.`);
  }
  giveAudio(file);
  if (isTranslation()) translateFile(file);
  else transcribeFile(file);
}

function transcribeFile(file) {
  const form = new FormData();
  form.append("stream", "true");
  if ($("language").value) form.append("language", $("language").value);
  if ($("hotwords").value.trim()) form.append("hotwords", $("hotwords").value);
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  let read = 0;
  let isDone = false;
  const readEvents = () => {
    if (request.status !== 200) return;
    for (let stop; (stop = request.responseText.indexOf("\n\n", read)) >= 0; read = stop + 2) {
      isDone = takeEvent(JSON.parse(request.responseText.slice(read + 6, stop))) || isDone;
    }
  };
  request.upload.onprogress = (event) => {
    const share = event.loaded / event.total;
    status(share < 1 ? `Sending ${file.name}` : "Waiting for the first words", share < 1 ? share : undefined);
  };
  request.onprogress = readEvents;
  request.onload = () => {
    if (request.status === 200) readEvents();
    else showError(errorOf(request.responseText, request.status));
    if (request.status === 200 && !isDone) showError("the server stopped in the middle.");
    end({ complete: isDone && $("error").hidden });
  };
  request.onerror = () => { showError("the server cannot be reached; is it still running?"); end(); };
  request.onabort = () => end();
  cancel = () => request.abort();
  status(`Sending ${file.name}`, 0);
  request.open("POST", "v1/audio/transcriptions");
  request.send(form);
}

function takeEvent(event) {
  if (event.type === "error") showError(event.error.message);
  if (event.type === "transcript.text.done") {
    transcript.duration = event.duration;
    transcript.language = event.language === "und" ? null : event.language;
  }
  if (event.type !== "transcript.text.delta") return true;
  if (event.segment) addSegment(event.segment);
  transcript.duration = Math.max(transcript.duration, event.seconds);
  const total = event.total_seconds;
  const of = total ? ` of ${clock(total)}` : "";
  status(`${isTranslation() ? "Translating" : "Transcribing"}: ${clock(event.seconds)}${of}`, total ? Math.min(1, event.seconds / total) : undefined);
  return false;
}

function errorOf(text, code) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `the server answered ${code}.`;
  }
}

// ---- downloads

async function download(format) {
  hideError();
  if (format === "json" && isTranslation()) return downloadTranslation();
  try {
    const answer = await fetch(`v1/transcripts/${format}`, { method: "POST", body: JSON.stringify(transcript) });
    if (!answer.ok) return showError(errorOf(await answer.text(), answer.status));
    keep(await answer.blob(), `${stem()}.${format}`);
  } catch {
    showError("the server cannot be reached; is it still running?");
  }
}

const stem = () => transcript.filename.replace(/\.[^.]*$/, "") || "transcript";

function keep(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function copyText() {
  const text = transcript.segments.map((segment) => segment.text).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Not allowed";
  }
  setTimeout(() => { $("copy").textContent = "Copy text"; }, 2000);
}

// ---- what is clicked, dropped and typed

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) takeFile($("file").files[0]);
  $("file").value = "";  // the same file may be chosen again
});
$("speak").addEventListener("click", () => {
  const hear = isTranslation() ? interpret : listen;
  hear().catch((error) => { showError(error.message); end(); });
});
$("stop").addEventListener("click", () => cancel?.());
$("copy").addEventListener("click", copyText);
$("downloads").addEventListener("click", (event) => {
  const format = event.target.dataset.format;
  if (format) download(format);
});
$("audio").addEventListener("play", follow);
$("audio").addEventListener("seeked", follow);
$("audio").addEventListener("error", () => { $("audio").hidden = true; $("unplayable").hidden = false; });
$("transcript").addEventListener("click", (event) => {
  const word = words[event.target.dataset.index];
  if (word) play(word.start);
});
$("transcript").addEventListener("keydown", (event) => {
  const at = Number(event.target.dataset.index);
  if (!words[at]) return;
  if (event.key === "Enter" || event.key === " ") play(words[at].start);
  else if (event.key === "ArrowRight" && words[at + 1]) focusWord(at, at + 1);
  else if (event.key === "ArrowLeft" && words[at - 1]) focusWord(at, at - 1);
  else return;
  event.preventDefault();
});

function focusWord(from, to) {
  words[from].element.tabIndex = -1;
  words[to].element.tabIndex = 0;
  words[to].element.focus();
}

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const files = event.dataTransfer.files;
  if (files.length) takeFile(files[0]);
  if (files.length > 1) showError(`one recording at a time; this is ${files[0].name}.`);
});

async function greet() {
  const health = await (await fetch("health")).json();
  limits = health.limits;
  $("model").textContent = health.model;
  $("limits").textContent = `Any audio or video, up to ${duration(limits.recording_seconds)} and ${megabytes(limits.upload_bytes)}`;
  offerTranslation(health);
  if (health.languages.length < 2) return;
  $("language-field").hidden = isTranslation();
  $("language").append(health.hears_language ? new Option("as heard", "auto") : new Option("any", ""));
  for (const code of health.languages) $("language").append(new Option(nameOf(code), code));
}

function nameOf(code) {
  try {
    const name = new Intl.DisplayNames(["en"], { type: "language" }).of(code.replace("_", "-"));
    return name === code ? code : `${name} (${code})`;
  } catch {
    return code;
  }
}

greet().catch(() => showError("the server cannot be reached; is it still running?"));
