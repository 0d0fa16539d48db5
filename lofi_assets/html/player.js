"use strict";
// One clip at a time, and keys while a player has the focus: j and k for the next and the one before, 1 to 9 for a clip of
// the same row, which goes on at the same second where the row is of one prompt.
(() => {
  const players = () => Array.from(document.querySelectorAll("audio"));

  document.addEventListener("play", (event) => {
    for (const player of players()) {
      if (player !== event.target) player.pause();
      player.closest("figure")?.classList.toggle("playing", player === event.target);
    }
  }, true);
  for (const ending of ["pause", "ended"]) {
    document.addEventListener(ending, (event) => event.target.closest("figure")?.classList.remove("playing"), true);
  }
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLAudioElement) event.target.closest("figure")?.classList.add("unplayable");
  }, true);

  const play = (player, second) => {
    if (!player) return;
    player.focus();
    player.scrollIntoView({ block: "nearest" });
    if (second !== undefined) player.currentTime = second;
    player.play().catch(() => {});
  };

  document.addEventListener("keydown", (event) => {
    const present = event.target;
    if (!(present instanceof HTMLAudioElement) || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = players();
    const row = present.closest(".players");
    if (event.key === "j") play(all[all.indexOf(present) + 1]);
    else if (event.key === "k") play(all[all.indexOf(present) - 1]);
    else if (/^[1-9]$/.test(event.key) && row) {
      const wanted = row.querySelectorAll("audio")[Number(event.key) - 1];
      play(wanted, row.classList.contains("together") ? present.currentTime : undefined);
    }
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-sort]");
    if (!button) return;
    const body = button.closest("section").querySelector("tbody");
    const place = (row) => { const value = row.dataset[button.dataset.sort]; return value === "" ? Infinity : Number(value); };
    const order = (a, b) => { const [x, y] = [place(a), place(b)]; return x === y ? 0 : x < y ? -1 : 1; };
    body.append(...Array.from(body.rows).sort(order));
    for (const other of button.parentElement.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  });
})();
