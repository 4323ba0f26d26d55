
(() => {
  "use strict";
  const data = document.getElementById("traces");
  if (!data || !window.uPlot) return;
  const values = (steps, per) => { let at = 0; return steps.map(step => step == null ? null : (at += step) / per); };
  const traces = JSON.parse(data.textContent).map(trace => ({
    ...trace, at: values(trace.at, 1000), low: values(trace.low, 10), mean: values(trace.mean, 10),
    high: values(trace.high, 10), temperature: values(trace.temperature, 1),
  }));
  const root = document.documentElement;
  const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
  const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");
  const HEIGHT = 320;

  // Each difference stands in four planes of bytes, zigzag.
  const sums = (bytes, from, n, per) => {
    const values = new Float64Array(n);
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const z = (bytes[from + i] | bytes[from + n + i] << 8 | bytes[from + 2 * n + i] << 16 | bytes[from + 3 * n + i] << 24) >>> 0;
      sum += z & 1 ? -(z + 1) / 2 : z / 2;
      values[i] = sum / per;
    }
    return values;
  };
  const samples = async text => {
    const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const n = bytes.length / 8;
    return [sums(bytes, 0, n, 10000), sums(bytes, 4 * n, n, 10)];
  };

  const nearest = (at, values) => {
    const placed = new Array(at.length).fill(null);
    let i = 0;
    for (const [second, watts] of values) {
      while (i < at.length - 1 && at[i] < second) i++;
      placed[i] = watts;
    }
    return placed;
  };

  const windows = trace => plot => {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const [kind, opened, closed] of trace.windows) {
      const from = Math.max(plot.valToPos(opened, "x", true), bbox.left);
      const to = Math.min(plot.valToPos(closed, "x", true), bbox.left + bbox.width);
      if (to <= from) continue;
      ctx.fillStyle = kind === "measurement" ? faded(colour("--c0"), 0.08) : faded(colour("--grid"), 0.5);
      ctx.fillRect(from, bbox.top, to - from, bbox.height);
    }
    ctx.fillStyle = colour("--bad");
    for (const [since, until] of trace.throttled) {
      const from = plot.valToPos(since, "x", true), to = plot.valToPos(until, "x", true);
      if (to > bbox.left && from < bbox.left + bbox.width) ctx.fillRect(from, bbox.top + bbox.height - 6 * devicePixelRatio, Math.max(to - from, 1), 6 * devicePixelRatio);
    }
    ctx.restore();
  };

  const names = trace => plot => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px sans-serif`;
    ctx.textAlign = "center";
    ctx.fillStyle = colour("--soft");
    for (const [kind, opened, closed] of trace.windows) {
      const from = Math.max(plot.valToPos(opened, "x", true), bbox.left);
      const to = Math.min(plot.valToPos(closed, "x", true), bbox.left + bbox.width);
      if (ctx.measureText(kind).width < to - from) ctx.fillText(kind, (from + to) / 2, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  };

  const watts = (plot, value) => value == null ? "" : value.toFixed(1) + " W";
  const series = (trace, whole) => {
    const line = { stroke: colour("--c0"), width: 1.6, points: { show: false }, value: watts };
    const time = { label: "time", value: (plot, value) => value == null ? "" : value.toFixed(3) + " s" };
    if (whole) return [time, { ...line, label: "power", width: 1 }];
    const edge = { ...line, stroke: "transparent", width: 0 };
    const counter = { ...line, label: "counter", stroke: colour("--soft"), dash: [4, 4], spanGaps: true };
    const degrees = { label: "temperature", scale: "C", stroke: colour("--c1"), width: 1.2, points: { show: false }, spanGaps: true, value: (plot, value) => value == null ? "" : value + " °C" };
    return [time, { ...edge, label: "lowest" }, { ...line, label: "mean" }, { ...edge, label: "highest" }, counter, ...(trace.temperature.length ? [degrees] : [])];
  };

  const draw = (figure, trace, whole) => {
    const font = "12px sans-serif";
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font, labelFont: font };
    const hasHeat = !whole && trace.temperature.length > 0;
    const values = whole || [trace.at, trace.low, trace.mean, trace.high, nearest(trace.at, trace.counter), ...(hasHeat ? [trace.temperature] : [])];
    const options = {
      width: figure.clientWidth - 24, height: HEIGHT,
      scales: { x: { time: false }, y: { range: (plot, low, high) => [0, high * 1.12 || 1] } },
      axes: [
        { ...axis, label: "seconds from the start of the measurement", labelSize: 18, size: 30 },
        { ...axis, label: "power, W", labelSize: 18, size: 46 },
        ...(hasHeat ? [{ ...axis, scale: "C", side: 1, size: 40, label: "°C", labelSize: 18, grid: { show: false } }] : []),
      ],
      series: series(trace, whole),
      bands: whole ? [] : [{ series: [3, 1], fill: faded(colour("--c0"), 0.25) }],
      hooks: { drawClear: [windows(trace)], draw: [names(trace)] },
      cursor: { drag: { x: true, y: false } },
    };
    return new uPlot(options, values, figure);
  };

  const upgrade = async figure => {
    const place = Number(figure.dataset.trace), trace = traces[place];
    const embedded = document.getElementById("samples-" + place);
    const whole = embedded && await samples(embedded.textContent);
    let plot = draw(figure, trace, whole);
    figure.classList.add("zoomed");
    const hint = document.createElement("div");
    hint.className = "hint";
    hint.textContent = (whole ? whole[0].length.toLocaleString("en") + " samples. " : "") + "Drag to look closer; a double click shows all.";
    figure.append(hint);
    const again = () => { plot.destroy(); plot = draw(figure, trace, whole); figure.append(hint); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new ResizeObserver(() => plot.setSize({ width: figure.clientWidth - 24, height: HEIGHT })).observe(figure);
  };

  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); upgrade(entry.target); }
  }, { rootMargin: "200px" });
  document.querySelectorAll("figure[data-trace]").forEach(figure => seen.observe(figure));
})();
