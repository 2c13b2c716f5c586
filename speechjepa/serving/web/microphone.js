
// Runs beside the page, in the browser's audio thread: 16-bit pieces of a tenth of a second.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.isOver = false;
    this.port.onmessage = () => {
      this.post();
      this.port.postMessage(null);
      this.isOver = true;
    };
  }

  post() {
    const piece = this.piece.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage(piece, [piece.buffer]);
  }

  process(inputs) {
    for (const sample of inputs[0][0] ?? []) {
      this.piece[this.filled++] = Math.round(32767 * Math.max(-1, Math.min(1, sample)));
      if (this.filled === this.piece.length) this.post();
    }
    return !this.isOver;
  }
}

registerProcessor("microphone", Microphone);
