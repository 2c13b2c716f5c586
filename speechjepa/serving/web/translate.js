
// ---- translation

const isTranslation = () => translates !== null && $("task").value === "translate";
const SILENCE = new Int16Array(16000);

function offerTranslation(health) {
  translates = health.translates;
  if (!translates) return;
  const into = translates.into ? nameOf(translates.into) : "the other language";
  $("task").append(new Option(`say it in ${into}`, "translate"));
  if (!health.transcribes) $("task").options[0].remove();
  $("task-field").hidden = false;
  $("task").addEventListener("change", () => showOptions(health));
  showOptions(health);
}

function showOptions(health) {
  const translating = isTranslation();
  $("hotwords-field").hidden = translating;
  $("language-field").hidden = translating || health.languages.length < 2;
  $("aloud-field").hidden = !(translating && translates.speech);
  $("aloud-when").textContent = translates.streams ? "while I speak" : "after each pause";
  $("endpoint").textContent = `POST /v1/audio/${translating ? "translations" : "transcriptions"}`;
  $("model").textContent = translating ? translates.model : health.model;
}

async function translateFile(file) {
  const form = new FormData();
  form.append("stream", "true");
  form.append("file", file, file.name);
  const stop = new AbortController();
  cancel = () => stop.abort();
  status(`Sending ${file.name}`);
  const speech = new Speech();
  let isDone = false;
  try {
    const answer = await fetch("v1/audio/translations", { method: "POST", body: form, signal: stop.signal });
    if (!answer.ok) showError(errorOf(await answer.text(), answer.status));
    else isDone = await takeEvents(answer.body, speech);
    if (answer.ok && !isDone) showError("the server stopped in the middle.");
  } catch {
    if (!stop.signal.aborted) showError("the server cannot be reached; is it still running?");
  }
  speech.give(`${stem()}-${transcript.language ?? "translated"}.wav`);
  end({ complete: isDone && $("error").hidden });
}

async function takeEvents(body, speech) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", isDone = false;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    text += read.value;
    for (let stop; (stop = text.indexOf("\n\n")) >= 0; text = text.slice(stop + 2)) {
      isDone = takeTranslation(JSON.parse(text.slice(6, stop)), speech) || isDone;
    }
  }
  return isDone;
}

function takeTranslation(event, speech) {
  if (event.type === "speech.audio.delta") {
    const bytes = Uint8Array.from(atob(event.audio), (character) => character.charCodeAt(0));
    speech.add(new Int16Array(bytes.buffer), event.sample_rate, event.start);
    return false;
  }
  if (event.type === "transcript.text.done") transcript.source_language = event.source_language;
  if (event.segment) addTranslation(event.segment);
  return takeEvent({ ...event, segment: undefined });
}

function addTranslation(segment) {
  const line = addSegment(segment);
  line.replaceChildren();
  writeTranslation(line, segment);
  return line;
}

function writeTranslation(line, segment) {
  let said = line.querySelector(".said");
  if (!said) {
    said = element(segment.speech_start === undefined ? "span" : "button", "said");
    line.append(said);
  }
  if (said.type === "submit") {  // a button, new
    said.type = "button";
    said.title = "hear it";
    said.addEventListener("click", () => {
      $("spoken").currentTime = segment.speech_start;
      $("spoken").play().catch(() => {});  // the player shows why
    });
  }
  const shown = translates.text ? segment.text : (segment.units ?? []).join(" ");
  said.textContent = shown.trim() || "…";
  said.classList.toggle("units", !translates.text);
}

// Speech that comes in pieces: kept as a file, and said at once if wished.
class Speech {
  constructor(aloud = false) {
    this.pieces = [];
    this.length = 0;
    this.rate = 16000;
    this.context = aloud ? new AudioContext() : null;
    this.next = 0;  // when what comes next may be said
  }

  add(samples, rate, start = this.length / rate) {
    this.rate = rate;
    let silent = Math.max(0, Math.round(start * rate) - this.length);
    this.length += silent + samples.length;
    for (; silent > 0; silent -= SILENCE.length) this.pieces.push(SILENCE.subarray(0, silent));
    this.pieces.push(samples);
    if (this.context) this.say(samples, rate);
  }

  say(samples, rate) {
    const buffer = this.context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.next = Math.max(this.next, this.context.currentTime + 0.05);
    source.start(this.next);
    this.next += buffer.duration;
  }

  give(name) {
    if (this.context) {
      const left = Math.max(0, this.next - this.context.currentTime);
      setTimeout(() => this.context.close(), 1000 * left + 500);
    }
    if (!this.length) return;
    const blob = wavFile(this.pieces, this.rate);
    URL.revokeObjectURL($("spoken").src);
    $("spoken").src = URL.createObjectURL(blob);
    $("spoken-player").hidden = false;
    $("original-label").hidden = $("hear").hidden = false;
    $("result").hidden = false;
    giveFile("speech", blob, name);
  }
}

function downloadTranslation() {
  const text = JSON.stringify(transcript, null, 2);
  keep(new Blob([text], { type: "application/json" }), `${stem()}.json`);
}

// ---- translation of what is spoken

async function interpret() {
  const capture = await openMicrophone({ echoCancellation: true });
  if (!capture) return;
  const speech = new Speech($("aloud").checked);
  let rate = 0, line = null;
  converse(capture, { task: "translate" }, {
    onready: (message) => {
      transcript.language = message.language;
      transcript.source_language = message.source_language;
      rate = message.speech_sample_rate;
    },
    onmessage: (message) => { line = takeUnits(message, line, speech); },
    onspeech: (samples) => speech.add(samples, rate),
    onclose: () => speech.give(`recording-${transcript.language ?? "translated"}.wav`),
  });
}

function takeUnits({ units, text, seconds, endpoint }, line, speech) {
  const segments = transcript.segments;
  if (units.length || text?.trim()) {
    if (!line) {
      const start = segments.length ? segments.at(-1).end : 0;
      const segment = { id: segments.length, start, end: seconds, text: text === null ? null : "", units: [] };
      if (translates.speech) segment.speech_start = speech.length / speech.rate;
      line = addTranslation(segment);
    }
    const segment = segments.at(-1);
    segment.end = seconds;
    segment.units.push(...units);
    if (text !== null) segment.text += text;
    writeTranslation(line, segment);
  }
  return endpoint ? null : line;
}
