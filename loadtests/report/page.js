"use strict";
// Draws the charts of a report with uPlot, from the JSON in #charts. Without this script every figure is still in a table.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const style = getComputedStyle(document.documentElement);
  const colour = (index, alpha) => theme(`--s${index}`) + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const theme = (name) => style.getPropertyValue(name).trim();
  const font = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

  const digits = (value) => (value >= 100 || value === 0 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
  const scaled = (value, units) => {
    let index = 0;
    while (index < units.length - 1 && Math.abs(value) >= units[index][0]) value /= units[index++][0];
    return `${digits(value)} ${units[index][1]}`;
  };
  const parts = (value, of) => `${Math.floor(value / of)}:${String(Math.floor(value % of)).padStart(2, "0")}`;
  const shows = {
    us: (value) => (value < 1 ? scaled(value * 1000, [[1000, "ns"]]) : scaled(value, [[1000, "µs"], [1000, "ms"], [Infinity, "s"]])),
    count: (value) => (Math.abs(value) < 10 ? digits(value) : Math.round(value).toLocaleString("en").replaceAll(",", "\u202f")),
    share: (value) => `${digits(value * 100)}%`,
    bytes: (value) => scaled(value, [[1024, "B"], [1024, "KiB"], [1024, "MiB"], [Infinity, "GiB"]]),
    // The whole axis has one unit, which its end decides.
    second: (value, end) => (end < 300 ? `${digits(value)} s` : end < 36000 ? `${parts(value, 60)} min` : `${parts(value / 60, 60)} h`),
    percentile: (value) => {
      const percent = 100 * (1 - 1 / value);
      const places = Math.max(0, Math.ceil(Math.log10(value) - 2 + 1e-9));
      return `${String(Number(percent.toFixed(places + 1)))}%`;
    },
  };

  // Ticks of a logarithmic axis: every decade, and 2 and 5 between them where there is room.
  const logTicks = (low, high) => {
    const within = Math.log10(high / low) < 3 ? [1, 2, 5] : [1];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of within) {
        const tick = Number((factor * 10 ** power).toPrecision(1));
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    return ticks;
  };
  const nice = (value, up) => {
    const power = 10 ** Math.floor(Math.log10(value));
    const steps = [1, 2, 5, 10];
    const ratio = value / power;
    return power * (up ? steps.find((step) => step >= ratio * 0.999) : steps.findLast((step) => step <= ratio * 1.001));
  };
  const percentTicks = (plot) => {
    const high = plot.scales.x.max;
    const room = plot.bbox.width / devicePixelRatio / Math.log10(high); // of a factor of ten
    const ticks = room * Math.log10(2) > 40 ? [1, 2] : [1];
    const stride = 10 ** Math.ceil(52 / room);
    for (let tick = 10; tick <= high; tick *= stride) ticks.push(tick);
    return ticks;
  };

  const spans = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const binary = Array.from({ length: 40 }, (_, power) => 2 ** power);

  class Drawing {
    constructor(figure, chart) {
      this.figure = figure;
      this.chart = chart;
      this.place = figure.querySelector(".plot");
      this.view = 0;
      this.off = new Set();
      this.buildSwitch();
      this.buildKeys();
      this.draw();
      new ResizeObserver(() => this.resize()).observe(this.place);
      this.place.tabIndex = 0;
      this.place.addEventListener("keydown", (event) => this.onKey(event));
    }

    get data() { return this.chart.views[this.view].data; }

    buildSwitch() {
      const set = this.figure.querySelector(".switch");
      if (!set) return;
      set.hidden = false;
      set.addEventListener("change", (event) => {
        this.view = Number(event.target.value);
        this.draw();
      });
    }

    buildKeys() {
      const keys = this.figure.querySelector(".keys");
      this.values = [];
      this.buttons = new Map();
      this.chart.lines.forEach((line, index) => {
        let button = this.buttons.get(line.label);
        if (!button) {
          button = document.createElement("button");
          button.type = "button";
          button.setAttribute("aria-pressed", "true");
          const key = document.createElement("i");
          const paint = `var(--s${line.colour})`;
          if (line.alpha < 1) {
            key.className = "block";
            key.style.background = paint;
            key.style.opacity = line.alpha;
          } else {
            key.className = ["", "dash", "dots"][line.dash];
            key.style.borderTopColor = paint;
          }
          const value = document.createElement("b");
          button.append(key, line.label, value);
          button.addEventListener("click", () => this.toggle(line.label));
          keys.append(button);
          this.buttons.set(line.label, button);
          this.values[index] = value;
        }
      });
      this.at = document.createElement("span");
      this.at.className = "at";
      keys.append(this.at);
      this.live = document.createElement("span");
      this.live.className = "unseen";
      this.live.setAttribute("aria-live", "polite");
      keys.append(this.live);
    }

    toggle(label) {
      const hide = !this.off.has(label);
      this.off[hide ? "add" : "delete"](label);
      this.buttons.get(label).setAttribute("aria-pressed", String(!hide));
      this.chart.lines.forEach((line, index) => {
        if (line.label === label) this.plot.setSeries(index + 1, { show: !hide });
      });
    }

    onKey(event) {
      const last = this.data[0].length - 1;
      const here = this.plot.cursor.idx ?? -1;
      const step = Math.max(1, Math.round(last / 60));
      const to = { ArrowRight: Math.min(last, here + step), ArrowLeft: Math.max(0, here - step), Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.plot.setCursor({ left: this.plot.valToPos(this.data[0][to], "x"), top: this.plot.bbox.height / devicePixelRatio / 2 });
      this.live.textContent = `${this.at.textContent}: ${[...this.buttons.values()].map((button) => button.textContent).join(", ")}`;
    }

    resize() {
      const width = this.place.clientWidth;
      if (width && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.place.clientHeight || this.plot.height });
    }

    showValues(plot) {
      const index = plot.cursor.idx;
      const { chart } = this;
      this.at.textContent = index == null ? "" : shows[chart.x](this.data[0][index], plot.scales.x.max);
      this.values.forEach((element, line) => {
        const value = index == null ? null : this.data[line + 1][index];
        element.textContent = value == null ? "" : ` ${shows[chart.y](value)}`;
      });
    }

    draw() {
      const { chart } = this;
      this.plot?.destroy();
      const soft = theme("--soft");
      const grid = { stroke: theme("--grid"), width: 1 };
      const axis = { stroke: soft, font, grid, ticks: { show: false } };
      const bands = [];
      const series = chart.lines.map((line, index) => {
        if (line.fill_to !== null) {
          bands.push({ series: [index + 1, line.fill_to + 1], fill: colour(line.colour, line.alpha) });
        }
        return {
          label: line.label, stroke: colour(line.colour, line.fill_to === null ? line.alpha : 1), width: line.width, dash: [undefined, [7, 4], [2, 3]][line.dash],
          points: { show: this.data[0].length < 4 }, show: !this.off.has(line.label), spanGaps: false,
        };
      });
      const percentile = chart.x === "percentile";
      const linear = (plot, low, high) => [0, Math.max((high ?? 0) * 1.08, chart.bound ? chart.bound * 1.12 : 0) || 1];
      const logarithmic = (plot, low, high) => (low == null || low <= 0 ? [1, 1000] : [nice(low, false), Math.max(nice(high, true), nice(low, false) * 2)]);
      const options = {
        width: this.place.clientWidth || 600, height: this.place.clientHeight || 280, legend: { show: false }, bands,
        cursor: { points: { size: 7 }, drag: { x: false, y: false }, y: false },
        padding: [12, 24, 0, 0],  // half of the last label of x
        scales: {
          x: percentile ? { time: false, distr: 3, log: 10, range: (plot, low, high) => [1, Math.max(high, 10)] } : { time: false },
          y: chart.log ? { distr: 3, log: 10, range: logarithmic } : { range: linear },
        },
        axes: [
          { ...axis, size: 38, gap: 9, ...(percentile
            ? { splits: percentTicks, filter: (plot, ticks) => ticks, values: (plot, ticks) => ticks.map((tick) => shows.percentile(tick)) }
            : { values: (plot, ticks) => ticks.map((tick) => shows.second(tick, plot.scales.x.max)), incrs: spans, space: 60 }) },
          { ...axis, size: 66, ...(chart.log ? { splits: (plot, index, low, high) => logTicks(low, high), filter: (plot, ticks) => ticks } : { space: 34, ...(chart.y === "bytes" ? { incrs: binary } : {}) }),
            values: (plot, ticks) => ticks.map((tick) => (tick == null ? "" : shows[chart.y](tick))) },
        ],
        series: [{}, ...series],
        hooks: {
          setCursor: [(plot) => this.showValues(plot)],
          draw: [(plot) => this.drawMarks(plot)],
        },
      };
      this.plot = new uPlot(options, this.data, this.place);
      this.place.querySelectorAll("canvas").forEach((canvas) => canvas.setAttribute("aria-hidden", "true"));
    }

    // Events as vertical lines with their text, and the bound as a dotted one.
    drawMarks(plot) {
      const { ctx, bbox } = plot;
      const { marks, bound } = this.chart;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = theme("--soft");
      ctx.lineWidth = devicePixelRatio;
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textAlign = "left"; // the axes left it at the right
      if (bound) {
        const y = plot.valToPos(bound, "y", true);
        ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
      }
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      let free = 0;
      for (const [second, text] of marks) {
        if (second < plot.scales.x.min || second > plot.scales.x.max) continue;
        const x = plot.valToPos(second, "x", true);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const width = ctx.measureText(text).width + 8 * devicePixelRatio;
        const left = Math.max(bbox.left, Math.min(x + 4 * devicePixelRatio, bbox.left + bbox.width - width));
        if (left >= free) {
          ctx.save();
          ctx.setLineDash([]);
          ctx.strokeStyle = theme("--card");
          ctx.lineWidth = 4 * devicePixelRatio;
          ctx.strokeText(text, left, bbox.top + 11 * devicePixelRatio);
          ctx.restore();
          ctx.fillText(text, left, bbox.top + 11 * devicePixelRatio);
          free = left + width;
        }
      }
      ctx.restore();
    }
  }

  const drawings = charts.map((chart) => new Drawing(document.getElementById(chart.id), chart));
  const redraw = () => drawings.forEach((drawing) => drawing.draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // On paper the colours are the light ones, and the width is the paper's.
  matchMedia("print").addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);
  addEventListener("afterprint", redraw);

  for (const button of document.querySelectorAll(".copy")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
      button.textContent = "Copied";
    });
  }
  document.documentElement.dataset.drawn = String(drawings.length);
})();
