// What needs a script: the age of things, and alerts as they come. Text from
// the cluster is only ever set as text.
"use strict";

function age(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return Math.floor(seconds) + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 48 * 3600) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " d ago";
}

function refreshAges() {
  for (const t of document.querySelectorAll("time.age")) {
    t.textContent = age((Date.now() - Date.parse(t.dateTime)) / 1000);
  }
}

// text shows a value of an output field as the server does.
function text(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value) && value.every((v) => typeof v === "string")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function first(fields, ...names) {
  for (const name of names) {
    if (text(fields[name]) !== "") return text(fields[name]);
  }
  return "";
}

function describe(a) {
  const f = a.output_fields || {};
  const s = a.subject || {};
  let action = first(f, "ka.verb", "evt.type");
  const resource = first(f, "ka.target.resource", "proc.name");
  const sub = first(f, "ka.target.subresource");
  if (resource) action += " " + resource + (sub ? "/" + sub : "");
  return {
    priority: a.priority, rule: a.rule, output: a.output, action, cluster: a.cluster || "", of: a.cluster || "",
    user: first(f, "ka.user.name", "user.name"),
    object: [s.kind, s.namespace, s.name].filter(Boolean).join("/") || first(f, "ka.target.name"),
    from: first(f, "ka.sourceips"),
  };
}

function makeRow(a) {
  const row = document.getElementById("alert-row").content.querySelector(".alert").cloneNode(true);
  const part = (name) => row.querySelector(`[data-part="${name}"]`);
  row.dataset.id = a.id;
  row.dataset.time = a.time;
  row.classList.add("new");
  for (const [name, value] of Object.entries(describe(a))) part(name).textContent = value;
  part("priority").className = "chip prio-" + a.priority.toLowerCase();
  const time = part("time").querySelector("time");
  time.dateTime = time.title = a.time;
  time.textContent = new Date(a.time).toISOString().slice(0, 19).replace("T", " ");
  part("link").href = "/alerts/" + encodeURIComponent(a.id);
  const fields = part("fields");
  fields.replaceChildren();
  for (const name of Object.keys(a.output_fields || {}).sort()) {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = text(a.output_fields[name]);
    fields.append(dt, dd);
  }
  return row;
}

// add puts a row where its time belongs: nearly always on top.
function add(list, a) {
  if (list.querySelector(`[data-id="${CSS.escape(a.id)}"]`)) return;
  const at = Date.parse(a.time);
  let next = list.firstElementChild;
  while (next && Date.parse(next.dataset.time) > at) next = next.nextElementSibling;
  list.insertBefore(makeRow(a), next);
  for (const empty of document.querySelectorAll("[data-empty]")) empty.remove();
  const older = document.querySelector("[data-older]");
  while (list.childElementCount > Number(list.dataset.max)) {
    list.lastElementChild.remove();
    if (older) { // its page would begin after what was just removed
      older.href = location.href;
      older.textContent = "reload to see older ones →";
    }
  }
}

function live(list) {
  const status = document.querySelector("[data-live]");
  const say = (on, words) => {
    status.hidden = false;
    status.classList.toggle("on", on);
    status.textContent = words;
  };
  // What comes while somebody reads does not move what is read: it waits.
  const waiting = [];
  const more = document.createElement("button");
  more.className = "quiet waiting";
  more.hidden = true;
  status.after(more);
  const show = () => {
    for (const a of waiting.splice(0)) add(list, a);
    more.hidden = true;
  };
  more.onclick = () => { show(); scrollTo(0, 0); };
  const reading = () => scrollY > 0 || list.matches(":hover, :focus-within") || list.querySelector("[open]") !== null;
  setInterval(() => { if (waiting.length > 0 && !reading()) show(); }, 1000);
  const source = new EventSource(list.dataset.stream);
  source.onopen = () => say(true, "live");
  source.addEventListener("alert", (event) => {
    waiting.push(JSON.parse(event.data));
    if (waiting.length > Number(list.dataset.max)) waiting.shift();
    if (!reading()) return show();
    more.hidden = false;
    more.textContent = "show " + waiting.length + " new";
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) say(false, "not live: reload the page");
    else say(false, "reconnecting");
  };
}

// refreshHealth says what the server cannot see, and when the last audit event
// came: a list alone cannot tell a quiet cluster from a deaf server.
async function refreshHealth(problems) {
  const answer = await fetch("/api/v1/health").catch(() => null);
  if (!answer || !answer.ok) return;
  const health = await answer.json();
  problems.replaceChildren(...(health.problems || []).map((words) => {
    const p = document.createElement("p");
    p.className = "problem";
    p.textContent = words;
    return p;
  }));
  if (!health.lastAuditEvent) return;
  const seconds = (Date.now() - Date.parse(health.lastAuditEvent)) / 1000;
  for (const span of document.querySelectorAll("[data-audit]")) {
    const lamp = document.createElement("span");
    lamp.className = "lamp " + (seconds > 600 ? "warn" : "ok");
    const time = document.createElement("time");
    time.className = "age";
    time.dateTime = time.title = health.lastAuditEvent;
    time.textContent = age(seconds);
    span.replaceChildren(lamp, "last audit event ", time, `, ${health.auditEvents} since the start`);
  }
}

refreshAges();
setInterval(refreshAges, 5000);
for (const list of document.querySelectorAll("[data-stream]")) live(list);
for (const problems of document.querySelectorAll("[data-problems]")) setInterval(refreshHealth, 5000, problems);
