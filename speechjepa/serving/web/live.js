
// ---- the microphone

async function openMicrophone({ echoCancellation = false } = {}) {
  if (!navigator.mediaDevices) {
    showError("browsers give the microphone to https pages and to localhost only.");
    return null;
  }
  begin("Live recording", { live: true });
  status("Asking for the microphone");
  let source;
  try {
    source = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation, noiseSuppression: false },
    });
  } catch (error) {
    showError(error.name === "NotAllowedError" ? "the microphone is not allowed for this page." : `there is no microphone (${error.message}).`);
    end();
    return null;
  }
  const context = new AudioContext();
  const url = URL.createObjectURL(new Blob([$("worklet").textContent], { type: "text/javascript" }));
  await context.audioWorklet.addModule(url);
  URL.revokeObjectURL(url);
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  const capture = {
    rate: context.sampleRate,
    seconds: 0,
    pieces: [],
    onpiece: () => {},
    onend: () => {},
    start: () => context.createMediaStreamSource(source).connect(node),
    end: () => node.port.postMessage(null),  // the last samples come before `onend`
    close: () => {
      for (const track of source.getTracks()) track.stop();
      context.close();
    },
    wav: () => wavFile(capture.pieces, context.sampleRate),
  };
  node.port.onmessage = ({ data }) => {
    if (data === null) return capture.onend();
    capture.pieces.push(data);
    capture.seconds += data.length / context.sampleRate;
    $("clock").textContent = clock(capture.seconds);
    const loudest = data.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
    $("level").firstElementChild.style.width = `${Math.round(100 * Math.sqrt(loudest / 32768))}%`;
    capture.onpiece(data);
  };
  return capture;
}

// Sends what the microphone hears to the server until it is stopped, and hands on what comes back.
function converse(capture, parameters, { onready, onmessage, onspeech, onclose }) {
  const address = new URL("v1/audio/stream", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.searchParams.set("sample_rate", Math.round(capture.rate));
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const send = (data) => { if (socket.readyState === WebSocket.OPEN) socket.send(data); };
  capture.onpiece = (piece) => send(piece.buffer);
  capture.onend = () => send(JSON.stringify({ type: "finish" }));
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) return onspeech(new Int16Array(data));
    const message = JSON.parse(data);
    if (message.type === "ready") {
      onready(message);
      capture.start();
      status("Listening");
    } else if (message.type === "error") showError(message.error.message);
    else onmessage(message);
  };
  socket.onclose = (event) => {
    if (event.code !== 1000 && $("error").hidden) showError("the connection broke; what was heard is kept.");
    capture.close();
    transcript.duration = capture.seconds;
    if (capture.seconds) giveAudio(capture.wav(), "recording.wav");
    if (capture.seconds) transcript.filename = "recording.wav";
    onclose();
    end({ complete: event.code === 1000 });
  };
  cancel = () => {
    $("stop").disabled = true;
    status("Hearing the last words");
    if (socket.readyState === WebSocket.OPEN) capture.end();
    else socket.close();
  };
}

async function listen() {
  const capture = await openMicrophone();
  if (!capture) return;
  let line = null;
  const partial = element("span", "partial");
  const language = $("language").value;
  const parameters = { task: "transcribe", ...(language && language !== "auto" ? { language } : {}) };
  converse(capture, parameters, {
    onready: (message) => { transcript.language = message.language; },
    onmessage: (message) => { line = takeWords(message, line, partial); },
    onspeech: () => {},
    onclose: () => removePartial(partial),
  });
}

function takeWords({ final, partial: guessed, endpoint }, line, partial) {
  const segments = transcript.segments;
  removePartial(partial);
  for (const word of final) {
    const last = segments.at(-1);
    if (line && word.start - last.end < PAUSE_SECONDS && word.end - last.start < SEGMENT_SECONDS) {
      last.words.push(word);
      addWord(line, word);
    } else {
      line = addSegment({ id: segments.length, start: word.start, words: [word] });
    }
    const segment = segments.at(-1);
    segment.end = word.end;
    segment.text = segment.words.map((each) => each.word).join(" ");
    segment.score = mean(segment.words.map((each) => each.score));
  }
  partial.textContent = guessed.map((word) => word.word).join(" ");
  if (endpoint) line = null;
  if (guessed.length) (line ?? addLine(element("span"))).append(" ", partial);
  return line;
}

function removePartial(partial) {
  const row = partial.closest(".segment");
  partial.remove();
  if (row && !row.querySelector(".word")) row.remove();
}

function wavFile(pieces, rate) {
  const size = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const write = (at, text) => [...text].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
  write(0, "RIFF"); header.setUint32(4, 36 + size, true); write(8, "WAVEfmt ");
  header.setUint32(16, 16, true); header.setUint16(20, 1, true); header.setUint16(22, 1, true);
  header.setUint32(24, rate, true); header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true); header.setUint16(34, 16, true);
  write(36, "data"); header.setUint32(40, size, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}
