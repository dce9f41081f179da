// The keyboard: whatever can be done with a pointer can be done with keys.
"use strict";

const rowSelector = "[data-row], .alerts .alert";
const places = { o: "/", i: "/incidents", a: "/alerts", d: "/decisions", f: "/findings", r: "/rules", p: "/playground", h: "/health", s: "/settings" };
const help = document.getElementById("keys");
let going = 0; // until when the next key is a place

// handle is what of a row takes the focus.
function handle(row) {
  return row.querySelector("[data-open]") || row.querySelector("summary") || row.querySelector("a");
}

function currentRow() {
  return document.activeElement && document.activeElement.closest(rowSelector);
}

function move(by) {
  const rows = [...document.querySelectorAll(rowSelector)].filter((row) => handle(row) && row.offsetParent !== null);
  if (rows.length === 0) return;
  const at = rows.indexOf(currentRow());
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
  handle(next).focus();
  next.scrollIntoView({ block: "nearest" });
}

function open() {
  const row = currentRow();
  const link = row && (row.querySelector("[data-open]") || row.querySelector('[data-part="link"]') || row.querySelector("a"));
  if (link) location.href = link.href;
}

// acknowledge takes the incident of the row, or of the page.
async function acknowledge() {
  const row = currentRow();
  const incident = (row && row.closest("[data-incident]")) || document.querySelector("main > [data-incident]");
  if (!incident) return;
  const answer = await fetch("/api/v1/incidents/" + encodeURIComponent(incident.dataset.incident), {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ state: "acknowledged" }),
  }).catch(() => null);
  const state = incident.querySelector("[data-state]");
  if (!answer || !answer.ok) {
    const error = answer ? (await answer.json().catch(() => ({}))).error : "the server does not answer";
    state.textContent = "not acknowledged: " + error;
  } else if (row && row.closest("[data-incident]") === incident && !incident.matches("main > *")) {
    state.textContent = (await answer.json()).state;
  } else {
    location.reload();
  }
}

function typing(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (help && help.open) return;
  const goes = Date.now() < going;
  going = 0;
  if (goes && places[event.key]) {
    location.href = places[event.key];
    return event.preventDefault();
  }
  const act = {
    j: () => move(1), k: () => move(-1), o: open, a: acknowledge, "?": () => help.showModal(),
    "/": () => document.querySelector("main [type=search][name=q], [data-find]").focus(),
    g: () => { going = Date.now() + 1500; },
  }[event.key];
  if (!act || !document.querySelector("[data-find]")) return;
  event.preventDefault();
  act();
});

for (const button of document.querySelectorAll("[data-help]")) {
  button.hidden = false;
  button.onclick = () => help.showModal();
}
