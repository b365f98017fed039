// The last hour, drawn by uPlot from what /ops/history has; drawn anew every half minute and when the colours change.
(() => {
  "use strict";
  const root = document.querySelector("[data-history]");
  if (!root) return;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const CHARTS = {
    throughput: { unit: "/min", series: [["succeeded", "succeeded", "--good", true]] },
    failures: { unit: "/min", series: [["failed", "failed attempts", "--warn", true], ["dead", "dead letters", "--bad", false]] },
    latency: { unit: "s", series: [["run50", "run, half", "--accent", false], ["run95", "run, 95 %", "--violet", false], ["wait95", "wait, 95 %", "--blue", false]] },
  };
  const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 5);
  let plots = [];
  let data = null;

  // The legend has the last minute, until the pointer is on another.
  const latest = (plot) => plot.setLegend({ idx: data.at.length - 1 }, false);

  function axis(size) {
    const grid = { stroke: colour("--line"), width: 1 };
    return { stroke: colour("--quiet"), grid, ticks: grid, font: "11px system-ui", size };
  }
  function draw() {
    for (const plot of plots) plot.destroy();
    plots = [];
    for (const [name, chart] of Object.entries(CHARTS)) {
      const place = root.querySelector(`[data-chart="${name}"]`);
      const shown = (value) => (value == null ? "–" : `${+value.toPrecision(3)} ${chart.unit}`);
      const series = chart.series.map(([, label, ink, filled]) => ({
        label, stroke: colour(ink), width: 1.75, fill: filled ? `${colour(ink)}22` : undefined,
        value: (_, value) => shown(value), spanGaps: true, points: { show: chart.unit === "s", size: 4 },
      }));
      const options = {
        hooks: { ready: [latest], setCursor: [(plot) => plot.cursor.idx == null && latest(plot)] }, padding: [10, 8, 0, 0],
        width: place.clientWidth, height: 170, cursor: { y: false }, legend: { live: true },
        scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, chart.unit === "s" ? 0.1 : 1)] } },
        axes: [{ ...axis(28), values: (_, ticks) => ticks.map(clock) }, axis(54)], series: [{ label: "at", value: (_, at) => (at == null ? "–" : clock(at)) }, ...series],
      };
      plots.push(new uPlot(options, [data.at, ...chart.series.map(([key]) => data[key])], place));
    }
  }
  async function load() {
    if (document.hidden) return;
    try {
      const answer = await fetch(root.dataset.history, { headers: { "X-Ops-Live": "1" }, redirect: "error" });
      if (!answer.ok) return;
      data = await answer.json();
      root.hidden = false;
      draw();
      document.querySelector("[data-history-wait]")?.remove();
    } catch {
      // the server is away: what was drawn stays
    }
  }
  let resized = 0;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => data && draw(), 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && draw());
  document.addEventListener("visibilitychange", load);
  setInterval(load, 30000);
  load();
})();
