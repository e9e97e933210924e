// What all parts of the page share: words, small DOM helpers, the channel to Python, the state it reports.
"use strict";
window.studio = (() => {
  const words = window.studioDefaults.words[window.studioBoot.language];

  /** A text in the page's language; {name} parts are filled in. */
  function t(key, parts = {}) {
    const text = words[key];
    if (text === undefined) { console.error(`no words for ${key}`); return key; }
    return text.replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
  }

  /** An element: h("button.quiet", {onclick, "aria-label": ...}, child, child...). Text is always set as text. */
  function h(spec, attributes = {}, ...children) {
    const [tag, ...classes] = spec.split(".");
    const node = document.createElement(tag || "div");
    if (classes.length) node.className = classes.join(" ");
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  /** One of the icons of icons.svg; decoration only, so hidden from screen readers. */
  function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    return svg;
  }

  /** A button with an icon, and words unless `quiet`; the label is read out and shown as a tooltip. */
  function button(name, label, onclick, { quiet = false, extra = "", ...more } = {}) {
    const classes = `button.tool${quiet ? ".quiet" : ""}${extra ? "." + extra : ""}`;
    const inside = [name ? icon(name) : null, quiet ? null : h("span", {}, label)];
    return h(classes, { type: "button", onclick, title: quiet ? label : null, "aria-label": quiet ? label : null, ...more }, inside);
  }

  /** Seconds as people say them: 0.8 s, 12 s, 3 min, 1 h 20 min. */
  function duration(seconds) {
    if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
    if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
    if (seconds < 99.5) return `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;

  // ---- what this browser remembers by itself

  function kept(name, fallback = null) {
    try { return JSON.parse(localStorage.getItem("studio." + name)) ?? fallback; } catch { return fallback; }
  }
  function keep(name, value) {
    try { localStorage.setItem("studio." + name, typeof value === "string" ? value : JSON.stringify(value)); }
    catch (error) { console.warn("this browser keeps nothing:", error); }
  }

  // ---- notices

  /** A short notice at the edge of the page; `action` is {label, run} for one button. */
  function say(text, { bad = false, action = null, seconds = bad ? 12 : 6 } = {}) {
    let place = document.getElementById("notices");
    if (!place) { place = h("div", { id: "notices", role: "status", "aria-live": "polite" }); document.body.append(place); }
    const note = h(`div.notice${bad ? ".bad" : ""}`, {}, icon(bad ? "alert" : "check"), h("span", {}, text));
    const close = () => note.remove();
    if (action) note.append(h("button.link", { type: "button", onclick: () => { close(); action.run(); } }, action.label));
    note.append(button("close", t("close"), close, { quiet: true }));
    place.append(note);
    while (place.children.length > 4) place.firstChild.remove();
    setTimeout(close, seconds * 1000);
  }

  // ---- the channel: functions of Python behind one hidden component

  let server = null, trigger = null, timer = 0, polling = false, again = false, lost = 0;
  const listeners = [];
  const state = { revision: -1 };

  /** Calls `run(state)` with every new state, and at once if there is one. */
  function watch(run) { listeners.push(run); if (state.revision !== -1) run(state); }

  /** Asks Python; errors become a notice and `null`. */
  async function ask(name, data = {}) {
    try {
      const answer = await server[name](data);
      if (answer && answer.error) { say(answer.error, { bad: true }); return null; }
      return answer;
    } catch (error) {
      console.warn(error);
      say(t("no_answer"), { bad: true });
      return null;
    }
  }

  /** Asks Python to do something, shows what it says and looks at the new state. */
  async function act(action, data = {}) {
    const answer = await ask("act", { do: action, ...data });
    if (answer && answer.say) say(answer.say);
    poll();
    return answer;
  }

  async function poll() {
    if (!server) return;
    if (polling) { again = true; return; }
    polling = true;
    clearTimeout(timer);
    try {
      const fresh = await server.look({ revision: state.revision });
      if (lost) document.documentElement.classList.remove("lost");
      lost = 0;
      if (!fresh.same) { Object.assign(state, fresh); for (const run of listeners) run(state); }
    } catch {
      // The studio is being restarted, or the machine sleeps: say so, keep what is shown, try again.
      if (++lost === 2) document.documentElement.classList.add("lost");
    }
    polling = false;
    const busy = state.running || (state.waiting && state.waiting.length);
    const wait = lost ? 2000 : document.hidden ? 4000 : busy ? 350 : 1500;
    timer = setTimeout(poll, again ? 30 : wait);
    again = false;
  }

  /** Called by the hidden component when it is there. */
  function connect(element, theirServer, theirTrigger) {
    server = theirServer;
    trigger = theirTrigger;
    poll();
    for (const run of waiting.splice(0)) run();
  }

  /** Fills the form from a clip, job, example or dropped file; Python decides what that means. */
  function fill(data) { trigger("fill", data); showTab("create"); }

  /** Asks for the cost line anew: a finished clip has taught what the next one takes. */
  function price() { trigger("price"); }

  function showTab(name) { document.querySelector(`#tabs button[role="tab"][data-tab-id="${name}"]`)?.click(); }

  const waiting = [];
  /** Calls `run()` as soon as Python can be asked. */
  function whenConnected(run) { if (server) run(); else waiting.push(run); }

  const mounts = {};
  /** Parts register a function by name; a component of that name hands over its element when it is on the page. */
  function part(name, build) { mounts[name] = build; }
  function mount(name, element, tools) { mounts[name](element.querySelector(".part"), tools); }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  return {
    t, h, icon, button, duration, clock, kept, keep, say, watch, ask, act, poll, connect, whenConnected, fill, price, showTab, part, mount, state,
  };
})();
