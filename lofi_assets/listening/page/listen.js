"use strict";
// The server knows what is asked, what was heard and what comes next; this page plays, tells and shows.

const $ = id => document.getElementById(id);
const token = location.hash.slice(1);
const LOAD_PATIENCE_MS = 8000;
const STALL_MS = 1500;
let current = null;  // the state as the server told it last
let welcomed = false;

function say(text) { $("status").textContent = text; }

function wait(ms) { return new Promise(done => setTimeout(done, ms)); }

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  $(id).querySelector("h2").focus();
}

// Ask the server; while it cannot be reached, go on asking. Returns { ok, status, data }.
async function ask(path, body, { once = false } = {}) {
  for (let pause = 500; ; pause = Math.min(2 * pause, 4000)) {
    try {
      const answer = await fetch("api/" + path, {
        method: "POST", headers: { Authorization: "Bearer " + token, "Content-Type": "application/json" },
        body: JSON.stringify(body || {}), signal: AbortSignal.timeout(10000), cache: "no-store",
      });
      const data = await answer.json();
      if (answer.status < 500) return { ok: answer.ok, status: answer.status, data };
      say(data.message);
    } catch {
      say("The connection is lost. Trying again; your answers are kept.");
    }
    if (once) return { ok: false, status: 0, data: {} };
    await wait(pause);
  }
}

// A whole sound, loaded before it plays. What stalls on the way is loaded again.
async function load(path) {
  for (;;) {
    const stopped = new AbortController();
    let patience = setTimeout(() => stopped.abort(), LOAD_PATIENCE_MS);
    try {
      const answer = await fetch("api/" + path, {
        headers: { Authorization: "Bearer " + token }, signal: stopped.signal, cache: "no-store",
      });
      if (answer.status === 409) return null;
      if (!answer.ok) throw new Error(String(answer.status));
      const parts = [], reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        clearTimeout(patience);
        if (done) break;
        patience = setTimeout(() => stopped.abort(), LOAD_PATIENCE_MS);
        parts.push(value);
      }
      return new Blob(parts, { type: "audio/wav" });
    } catch {
      say("The sound stalls on its way. Loading it again; your answers are kept.");
      await wait(1000);
    } finally {
      clearTimeout(patience);
    }
  }
}

// Events of the player, one after the other.
let telling = Promise.resolve();
let waiting = 0;
function tell(question, excerpt, event, position) {
  if (event === "beat" && waiting > 2) return telling;
  waiting += 1;
  const send = () => ask("event", { question, excerpt, event, position: Math.max(0, position) });
  telling = telling.then(send).then(answer => { waiting -= 1; return answer; });
  return telling;
}

// --- one player ------------------------------------------------------------------------------------------------------

let players = [];

class Player {
  constructor(question, excerpt, name) {
    this.question = question;
    this.excerpt = excerpt;
    this.audio = new Audio();
    this.audio.preservesPitch = true;
    this.audio.volume = volume();
    this.box = document.createElement("div");
    this.box.className = "player";
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.className = "play";
    this.name = name;
    this.bar = document.createElement("progress");
    this.bar.max = 1;
    this.bar.value = 0;
    this.bar.setAttribute("aria-hidden", "true");
    this.note = document.createElement("p");
    this.note.className = "heard";
    this.box.append(this.button, this.bar, this.note);
    this.label("Loading");
    this.button.disabled = true;
    this.button.addEventListener("click", () => this.toggle());
    this.audio.addEventListener("ended", () => this.over());
    this.audio.addEventListener("waiting", () => this.stall());
    this.audio.addEventListener("error", () => this.stall());
    this.audio.addEventListener("ratechange", () => {
      if (this.audio.playbackRate === 1) return;
      this.audio.playbackRate = 1;
      this.interrupt("rate");
    });
    this.audio.addEventListener("volumechange", () => {
      if (this.audio.muted || this.audio.volume < 0.05) this.interrupt("mute");
    });
  }

  label(word) { this.button.textContent = word + " " + this.name; }

  async prepare() {
    const blob = await load("audio/" + this.question + "/" + this.excerpt);
    if (!blob) return refresh();
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    this.audio.src = URL.createObjectURL(blob);
    this.button.disabled = false;
    this.label("Play");
  }

  heard(yes) { this.note.textContent = yes ? "Heard to the end" : ""; this.done = yes; }

  get playing() { return Boolean(this.beat); }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  async play() {
    for (const other of players) if (other !== this && other.playing) other.pause();
    if (this.audio.ended || this.spoilt) this.audio.currentTime = 0;
    this.spoilt = false;
    this.audio.muted = false;
    this.audio.volume = volume();
    this.started = performance.now();
    try { await this.audio.play(); } catch { say("Your browser did not play it. Please press play again."); return; }
    tell(this.question, this.excerpt, "play", this.audio.currentTime).then(answer => this.told(answer));
    this.button.setAttribute("aria-pressed", "true");
    this.label("Pause");
    let last = this.audio.currentTime, still = 0, beats = 0;
    this.beat = setInterval(() => {
      const now = this.audio.currentTime;
      this.bar.value = now / (this.audio.duration || 1);
      still = now > last ? 0 : still + 250;
      last = now;
      if (still >= STALL_MS && !this.audio.ended) return this.stall();
      if (++beats % 4 === 0) tell(this.question, this.excerpt, "beat", now);
    }, 250);
  }

  rest() {
    clearInterval(this.beat);
    this.beat = null;
    this.button.setAttribute("aria-pressed", "false");
    this.label("Play");
  }

  pause() {
    this.audio.pause();
    this.rest();
    tell(this.question, this.excerpt, "pause", this.audio.currentTime).then(answer => this.told(answer));
  }

  over() {
    this.rest();
    this.bar.value = 1;
    tell(this.question, this.excerpt, "ended", this.audio.duration).then(answer => this.told(answer));
  }

  stall() { if (this.playing) this.interrupt("stall"); }

  // This pass does not count; the next one starts from the beginning.
  interrupt(event) {
    if (!this.playing) return;
    this.spoilt = true;
    this.audio.pause();
    this.rest();
    tell(this.question, this.excerpt, event, this.audio.currentTime).then(answer => this.told(answer));
  }

  async told(answer) {
    if (!current.question || current.question.id !== this.question) return;
    if (answer.status === 409) {  // the server was started anew and has to hand the excerpt out again
      if (this.playing) { this.audio.pause(); this.rest(); }
      this.spoilt = true;
      await this.prepare();
      return say("The connection was lost for a while. Please play it again from the start.");
    }
    if (answer.data.message) this.spoilt = true;
    say(answer.data.message || "");
    if (answer.data.heard) heard(answer.data.heard);
  }

  drop() {
    clearInterval(this.beat);
    this.audio.pause();
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
  }
}

function heard(slots) {
  slots.forEach((yes, slot) => players[slot] && players[slot].heard(yes));
  const all = slots.every(Boolean);
  const opened = all && $("choice").disabled;
  for (const id of ["choice", "confidence", "next"]) $(id).disabled = !all;
  if (opened) say("You can answer now.");
}

// --- the stages ------------------------------------------------------------------------------------------------------

async function refresh() {
  const { ok, data } = await ask("state");
  if (!ok) return problem(data.message);
  render(data);
}

function problem(text) {
  $("problem-text").textContent = text;
  show("problem");
}

function render(state) {
  current = state;
  const tiers = state.kind === "tiers";
  $("about-music").hidden = tiers;
  $("about-tiers").hidden = !tiers;
  $("total").textContent = $("pieces").textContent = state.total;
  $("progress").hidden = !["listen", "done"].includes(state.stage);
  $("count").textContent = state.done + " of " + state.total + " answered";
  $("bar").max = state.total;
  $("bar").value = state.done;
  $("begin").textContent = state.done ? "Go on" : "Begin";
  $("footer").hidden = !["check", "listen"].includes(state.stage) || !welcomed;
  $("keys").hidden = tiers;
  for (const player of players) player.drop();
  players = [];
  if (state.stage === "done") { say(""); return show("end"); }
  if (state.stage === "stopped") return show("stopped");
  if (!welcomed) return show("welcome");
  if (state.stage === "check") return check(state.check);
  return tiers ? Tiers.show(state) : question(state.question, state);
}

function check({ rounds, tones, left }) {
  $("rounds").replaceChildren();
  for (let round = 0; round < rounds; round++) {
    const field = document.createElement("fieldset");
    field.className = "round";
    const legend = document.createElement("legend");
    legend.textContent = "Row " + (round + 1) + ": which tone is the quietest?";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Play row " + (round + 1);
    const audio = new Audio();
    button.addEventListener("click", async () => {
      if (!audio.src) audio.src = URL.createObjectURL(await load("tones/" + round));
      audio.volume = volume();
      audio.currentTime = 0;
      audio.play();
    });
    const options = document.createElement("div");
    options.className = "options three";
    ["first", "second", "third"].slice(0, tones).forEach((word, tone) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), {
        type: "radio", name: "round-" + round, value: tone, required: true,
      });
      const text = document.createElement("span");
      text.textContent = word;
      label.append(input, text);
      options.append(label);
    });
    field.append(legend, button, options);
    $("rounds").append(field);
  }
  $("attempts").textContent = left === 1 ? "This is the last attempt." : "You have " + left + " attempts.";
  show("check");
}

$("check-form").addEventListener("submit", async event => {
  event.preventDefault();
  const form = new FormData($("check-form"));
  const quietest = [...Array(current.check.rounds).keys()].map(round => Number(form.get("round-" + round)));
  const { ok, data } = await ask("check", { quietest });
  if (!ok) return refresh();
  say(data.passed ? "Thank you, that is right." : "That was not right. Are both sides of your headphones on?");
  render(data.state);
});

const FORMS = {
  single: { title: "Was this made by AI or by people?", values: ["ai", "real"], texts: ["AI", "People"], players: [""] },
  pair: {
    title: "Which of the two was made by AI?", values: ["first", "second"], texts: ["The first", "The second"],
    players: ["the first", "the second"],
  },
};

function question({ id, form, training, heard: slots }, state) {
  const about = FORMS[form];
  $("question-title").textContent = training ? "Practice" : "Question " + (state.done + 1) + " of " + state.total;
  $("practice").hidden = !training;
  $("choice-legend").textContent = about.title;
  about.texts.forEach((text, n) => {
    $("said-" + n).value = about.values[n];
    $("said-" + n + "-text").textContent = text;
  });
  $("answer").reset();
  $("answer").hidden = false;
  $("feedback").hidden = true;
  players = slots.map((_, n) => new Player(id, n, about.players[n]));
  $("players").replaceChildren(...players.map(player => player.box));
  for (const part of ["choice", "confidence", "next"]) $(part).disabled = true;
  show("question");
  heard(slots);
  if (!slots.every(Boolean)) say("Listen to the end, then answer. You may play it again.");
  for (const player of players) player.prepare();
}

$("answer").addEventListener("submit", async event => {
  event.preventDefault();
  const form = new FormData($("answer"));
  $("next").disabled = true;
  for (const player of players) if (player.playing) player.pause();
  await telling;
  const { ok, data } = await ask("answer", {
    question: current.question.id, said: form.get("said"), confidence: Number(form.get("confidence")),
  });
  if (!ok) { say(data.message); return refresh(); }
  if (!data.feedback) { say(""); return render(data.state); }
  $("feedback-text").textContent = data.feedback;
  $("answer").hidden = true;
  $("feedback").hidden = false;
  say(data.feedback);
  $("continue").onclick = () => { say(""); render(data.state); };
  $("continue").focus();
});

// --- volume and keys -------------------------------------------------------------------------------------------------

function volume() { return Number($("volume").value) / 100; }

$("volume").addEventListener("input", () => { for (const player of players) player.audio.volume = volume(); });

document.addEventListener("keydown", event => {
  if (!$("shortcuts").checked || event.ctrlKey || event.altKey || event.metaKey || $("question").hidden) return;
  if (event.target.closest("button, summary, input[type=range], input[type=checkbox]")) return;
  const key = event.key.toLowerCase();
  if (key === " ") {
    const next = players.find(player => player.playing) || players.find(player => !player.done) || players[0];
    if (next && !next.button.disabled) { event.preventDefault(); next.toggle(); }
    return;
  }
  if ($("choice").disabled || $("answer").hidden) return;
  if (key === "a" || key === "b") $("said-" + "ab".indexOf(key)).click();
  else if (key >= "1" && key <= "5") document.querySelector('input[name="confidence"][value="' + key + '"]').click();
  else if (key === "enter") { event.preventDefault(); $("answer").requestSubmit(); }
});

$("begin").addEventListener("click", () => { welcomed = true; render(current); });

if (token) refresh();
else problem("Please open the whole link that you were given; it ends with # and some letters.");
