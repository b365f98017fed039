// The console's own script: dialogs that ask, the keyboard, times that go on, and whether the page is live. htmx does the rest.
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const dialog = $("#dialog");
  const keys = $("#keys");

  const current = $(".rail [aria-current]");
  if (current) current.scrollIntoView({ block: "nearest", inline: "center" });

  // --- dialogs ---------------------------------------------------------------------------------
  document.addEventListener("htmx:afterSwap", (event) => {
    if (dialog && event.detail.target === dialog && !dialog.open) dialog.showModal();
  });
  document.addEventListener("click", (event) => {
    const closer = event.target.closest("[data-close]");
    const inside = closer && closer.closest("dialog");
    if (inside) {
      event.preventDefault();
      inside.close();
    } else if (event.target instanceof HTMLDialogElement) {
      event.target.close(); // beside the dialog
    }
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent) event.preventDefault(); // once, however often the button is pressed
    form.dataset.sent = "1";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });

  // --- times -----------------------------------------------------------------------------------
  const UNITS = [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]];
  function duration(seconds) {
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
    const [unit, size, lower, step] = UNITS.find((each) => seconds >= each[1]);
    const rest = Math.floor((seconds % size) / step);
    return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${lower}` : "");
  }
  function tick() {
    const now = Date.now();
    for (const each of document.querySelectorAll("time[datetime]")) {
      const seconds = (Date.parse(each.dateTime) - now) / 1000;
      const text = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `in ${duration(seconds)}` : `${duration(-seconds)} ago`;
      if (each.textContent !== text) each.textContent = text;
    }
  }
  setInterval(() => document.hidden || tick(), 5000);

  // --- whether the page is live ----------------------------------------------------------------
  function live(on) {
    const chip = $("[data-live]");
    if (chip) {
      chip.textContent = on ? "live" : "not live";
      chip.classList.toggle("bad", !on);
    }
  }
  document.addEventListener("htmx:sseOpen", () => live(true));
  document.addEventListener("htmx:sseError", () => live(false));

  // --- where there is no room for the rail, the place of the page is in view -------------------
  const place = $(".rail [aria-current]");
  const nav = place && place.closest("nav");
  if (nav && nav.scrollWidth > nav.clientWidth) nav.scrollLeft = place.offsetLeft - nav.offsetLeft - 16;

  // --- the keyboard ----------------------------------------------------------------------------
  const links = () => [...document.querySelectorAll("[data-rows] tbody tr")];
  function move(by) {
    const rows = links();
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("here"));
    const to = Math.min(rows.length - 1, Math.max(0, at + by + (at < 0 && by < 0 ? 1 : 0)));
    rows.forEach((row, number) => row.classList.toggle("here", number === to));
    const link = $("a", rows[to]);
    if (link) link.focus();
    rows[to].scrollIntoView({ block: "nearest" });
  }
  let before = "";
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    const after = before;
    before = event.key;
    if (after === "g") {
      const link = $(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) {
        before = "";
        link.click();
        return;
      }
    }
    const search = [...document.querySelectorAll("main [data-search]"), $(".find input")].find((each) => each && each.offsetParent);
    const act = {
      j: () => move(1),
      k: () => move(-1),
      "/": search && (() => search.focus()),
      "?": keys && (() => keys.showModal()),
    }[event.key];
    const keyed = $(`[data-key="${CSS.escape(event.key)}"]`);
    if (act) {
      event.preventDefault();
      act();
    } else if (keyed) {
      event.preventDefault();
      keyed.click();
    }
  });

  // All rows of a page are selected by one box.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("[data-select]");
    if (!form) return;
    const boxes = [...form.querySelectorAll('input[name="id"]')];
    const all = $("[data-all]", form);
    if (event.target === all) boxes.forEach((box) => { box.checked = all.checked; });
    else if (all) all.checked = boxes.every((box) => box.checked);
  });

  // A list that loads itself again keeps its row.
  let chosen = "";
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, requestConfig } = event.detail;
    if (xhr.status >= 400 && requestConfig.headers["X-Ops-Live"]) {
      event.detail.shouldSwap = false; // what is there stays until the server is back
      return;
    }
    const row = $("tr.here a", event.detail.target);
    chosen = row ? row.getAttribute("href") : "";
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const link = chosen && $(`tr a[href="${CSS.escape(chosen)}"]`, event.detail.target);
    if (link) link.closest("tr").classList.add("here");
    chosen = "";
  });
})();
