"use strict";
// Several versions of a piece against a reference, switched while they play (ITU-R BS.1534).

const Tiers = (() => {
  let context = null, sources = [], gains = [], question = null, playing = -1, since = 0, beat = null, heardSlots = [];

  const at = () => Math.max(0, context.currentTime - since);
  const button = slot => slot === 0 ? $("reference") : $("version-" + slot);

  async function show_(state) {
    halt();
    question = state.question;
    heardSlots = question.heard;
    $("tiers-title").textContent = "Piece " + (state.done + 1) + " of " + state.total;
    $("versions").replaceChildren(...Array.from({ length: question.excerpts - 1 }, (_, n) => row(n + 1)));
    $("rated").disabled = $("reference").disabled = true;
    show("tiers");
    say("Loading");
    context = context || new AudioContext();
    const own = question.id;
    const buffers = [];
    for (let slot = 0; slot < question.excerpts; slot++) {
      const blob = await load("audio/" + own + "/" + slot);
      if (!blob) return refresh();
      buffers.push(await context.decodeAudioData(await blob.arrayBuffer()));
    }
    if (question.id !== own) return;
    start(buffers);
    for (let slot = 0; slot < question.excerpts; slot++) button(slot).disabled = false;
    say("Play the reference, then each version.");
    open();
  }

  function row(slot) {
    const line = document.createElement("div");
    line.className = "version";
    const name = "Version " + String.fromCharCode(64 + slot);
    const play = Object.assign(document.createElement("button"), {
      type: "button", id: "version-" + slot, className: "play", textContent: name, disabled: true,
    });
    play.setAttribute("aria-pressed", "false");
    play.addEventListener("click", () => select(slot));
    const slider = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: 100, value: 50, id: "rating-" + slot,
    });
    slider.setAttribute("aria-label", "Rating of " + name.toLowerCase() + ", 0 bad to 100 as the reference");
    const output = Object.assign(document.createElement("output"), { textContent: "-" });
    slider.addEventListener("input", () => { output.textContent = slider.value; slider.dataset.moved = "1"; open(); });
    line.append(play, slider, output);
    return line;
  }

  function start(buffers) {
    gains = buffers.map(() => new GainNode(context, { gain: 0 }));
    sources = buffers.map((buffer, slot) => {
      const source = new AudioBufferSourceNode(context, { buffer, loop: true });
      source.connect(gains[slot]).connect(context.destination);
      source.start();
      return source;
    });
    context.suspend();
  }

  async function select(slot) {
    if (slot === playing) return pause();
    if (playing >= 0) leave();
    await context.resume();
    gains.forEach((gain, n) => gain.gain.setTargetAtTime(n === slot ? volume() : 0, context.currentTime, 0.01));
    playing = slot;
    since = context.currentTime;
    button(slot).setAttribute("aria-pressed", "true");
    tell(question.id, slot, "play", 0).then(told);
    beat = setInterval(() => tell(question.id, slot, "beat", at()).then(told), 1000);
  }

  // Tell how long the present one was heard.
  function leave() {
    clearInterval(beat);
    tell(question.id, playing, "pause", at()).then(told);
    button(playing).setAttribute("aria-pressed", "false");
    playing = -1;
  }

  function pause() {
    if (playing >= 0) leave();
    if (context) context.suspend();
  }

  function halt() {
    if (playing >= 0) pause();
    for (const source of sources) source.stop();
    sources = [];
  }

  function told(answer) {
    if (answer.status === 409) { halt(); return refresh(); }
    if (answer.data.heard) { heardSlots = answer.data.heard; open(); }
    if (answer.data.message) say(answer.data.message);
  }

  // Every version heard and rated.
  function open() {
    const sliders = [...$("versions").querySelectorAll("input")];
    const rated = sliders.every(slider => slider.dataset.moved);
    const left = heardSlots.filter(yes => !yes).length;
    $("rated").disabled = !rated;
    if (rated && left) say("Please listen for a few seconds to each, and to the reference.");
  }

  $("reference").addEventListener("click", () => select(0));
  $("stop").addEventListener("click", pause);
  $("ratings").addEventListener("submit", async event => {
    event.preventDefault();
    pause();
    await telling;
    const ratings = [...$("versions").querySelectorAll("input")].map(slider => Number(slider.value));
    const { ok, data } = await ask("answer", { question: question.id, ratings });
    if (!ok) return say(data.message);
    say("");
    render(data.state);
  });

  return { show: show_ };
})();
