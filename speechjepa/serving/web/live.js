
// ---- the microphone

async function listen() {
  if (!navigator.mediaDevices) {
    return showError("browsers give the microphone to https pages and to localhost only.");
  }
  begin("Live recording", { live: true });
  status("Asking for the microphone");
  let source;
  try {
    source = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
    });
  } catch (error) {
    showError(error.name === "NotAllowedError" ? "the microphone is not allowed for this page." : `there is no microphone (${error.message}).`);
    return end();
  }
  const context = new AudioContext();
  const url = URL.createObjectURL(new Blob([$("worklet").textContent], { type: "text/javascript" }));
  await context.audioWorklet.addModule(url);
  URL.revokeObjectURL(url);
  const microphone = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  const pieces = [];
  let numSamples = 0, line = null;
  const partial = element("span", "partial");
  const address = new URL("v1/audio/stream", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.searchParams.set("sample_rate", Math.round(context.sampleRate));
  const language = $("language").value;
  if (language && language !== "auto") address.searchParams.set("language", language);
  const socket = new WebSocket(address);

  const finish = (complete) => {
    for (const track of source.getTracks()) track.stop();
    context.close();
    removePartial(partial);
    transcript.duration = numSamples / context.sampleRate;
    if (numSamples) giveAudio(wavFile(pieces, context.sampleRate), "recording.wav");
    if (numSamples) transcript.filename = "recording.wav";
    end({ complete });
  };
  microphone.port.onmessage = ({ data }) => {
    if (data === null) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "finish" }));
      return;
    }
    pieces.push(data);
    numSamples += data.length;
    $("clock").textContent = clock(numSamples / context.sampleRate);
    const loudest = data.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
    $("level").firstElementChild.style.width = `${Math.round(100 * Math.sqrt(loudest / 32768))}%`;
    if (socket.readyState === WebSocket.OPEN) socket.send(data.buffer);
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "ready") {
      context.createMediaStreamSource(source).connect(microphone);
      transcript.language = message.language;
      status("Listening");
    }
    if (message.type === "error") showError(message.error.message);
    if (message.type === "words") line = takeWords(message, line, partial);
  };
  socket.onclose = (event) => {
    if (event.code !== 1000 && $("error").hidden) showError("the connection broke; what was heard is kept.");
    finish(event.code === 1000);
  };
  cancel = () => {
    $("stop").disabled = true;
    status("Hearing the last words");
    if (socket.readyState === WebSocket.OPEN) microphone.port.postMessage(null);
    else socket.close();
  };
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
