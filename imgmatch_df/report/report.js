/* The report page: clusters at every radius, a person's choices, and files of decisions. It requests nothing.
 *
 * Nodes are rows that have a partner, numbered by rank: node 0 is kept before all others, and the representative of a
 * cluster is its smallest node. Pairs are sorted, nearest first, so that those within a radius are the first ones.
 */
/* global uPlot */
"use strict";

// Functions without state, which tests call.
globalThis.imgmatchReport = Object.freeze({
  /** Return how many of the sorted pairs hold: within a distance, or with at least so many votes. */
  countPairs(measures, value, isVotes) {
    let [low, high] = [0, measures.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isVotes ? measures[middle] >= value : measures[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  },

  /** Join nodes by the first `count` pairs: the representative of each node, the pair by which the node joined it
   * (`via`), and the pairs that joined clusters (`links`). Skipped nodes join nothing. */
  connectedClusters(n, a, b, count, skipped) {
    const root = new Int32Array(n).map((_, node) => node);
    const above = new Int32Array(n).fill(-1); // the representative that took over a representative, and by which pair
    const links = new Int32Array(n).fill(-1);
    const via = new Int32Array(n).fill(-1);
    for (let pair = 0; pair < count; pair++) {
      let [left, right] = [a[pair], b[pair]];
      if (skipped[left] || skipped[right]) continue;
      while (root[left] !== left) left = root[left] = root[root[left]];
      while (root[right] !== right) right = root[right] = root[root[right]];
      if (left === right) continue;
      const high = Math.max(left, right);
      root[high] = above[high] = Math.min(left, right);
      links[high] = pair;
    }
    for (let node = 0; node < n; node++) {
      if (above[node] < 0) continue;
      root[node] = root[above[node]];
      via[node] = above[above[node]] < 0 ? links[node] : via[above[node]];
    }
    return { root, via, links };
  },

  /** The same for stars: a node that is in no cluster founds one, and takes its partners that are in none. */
  starClusters(n, a, b, count, skipped) {
    const pairsOf = Array.from({ length: n }, () => []);
    for (let pair = 0; pair < count; pair++) {
      pairsOf[a[pair]].push(pair);
      pairsOf[b[pair]].push(pair);
    }
    const root = new Int32Array(n).fill(-1);
    const via = new Int32Array(n).fill(-1);
    for (let node = 0; node < n; node++) {
      if (root[node] >= 0) continue;
      root[node] = node;
      for (const pair of skipped[node] ? [] : pairsOf[node]) {
        const other = a[pair] + b[pair] - node;
        if (root[other] >= 0 || skipped[other]) continue;
        root[other] = node;
        via[other] = pair;
      }
    }
    return { root, via, links: via };
  },

  /** Return the clusters of at least two nodes, each as its nodes in order. */
  gatherClusters(root) {
    return [...Map.groupBy(root.keys(), (node) => root[node]).values()].filter((nodes) => nodes.length > 1);
  },

  /** Return the numbers of clusters, by representative. `byRow` has all nodes by `row`, their number in the frame. Rows
   * without a partner are clusters too; skipped nodes are in none. */
  numberClusters(root, skipped, byRow, row) {
    const numbers = new Map();
    let nOthers = 0; // rows so far that are not the first of a cluster
    for (const node of byRow) {
      if (skipped[node] || numbers.has(root[node])) nOthers++;
      else numbers.set(root[node], row[node] - nOthers);
    }
    return numbers;
  },

  /** Return a text in three parts: what it has in common with another at its start, what differs, and the rest. */
  differingPart(text, other) {
    const [left, right] = [Array.from(text), Array.from(other)];
    const length = Math.min(left.length, right.length);
    let [start, end] = [0, 0];
    while (start < length && left[start] === right[start]) start++;
    while (end < length - start && left.at(-1 - end) === right.at(-1 - end)) end++;
    return [[0, start], [start, left.length - end], [left.length - end]].map((range) => left.slice(...range).join(""));
  },

  /** Return objects as CSV (RFC 4180) with these columns; null is an empty field. */
  toCsv(names, rows) {
    const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const lines = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? "")))];
    return lines.map((fields) => `${fields.map(field).join(",")}\n`).join("");
  },

  /** Return the rows of a CSV text (RFC 4180) as objects of texts. */
  parseCsv(text) {
    const lines = [[]];
    const pattern = /("(?:[^"]|"")*"|(?!")[^,\r\n]*)(,|\r\n|\n|\r|$)/gy;
    pattern.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
    for (let end = ","; end;) {
      const found = pattern.exec(text);
      if (!found) throw new Error(`a quote of row ${lines.length} is not in pairs`);
      lines.at(-1).push(found[1].startsWith('"') ? found[1].slice(1, -1).replaceAll('""', '"') : found[1]);
      end = found[2];
      if (end && end !== ",") lines.push([]);
    }
    const [names, ...rows] = lines.filter((fields) => fields.length > 1 || fields[0]);
    return rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
  },

  /** Return seconds since 1970 as UTC with microseconds. */
  timeText(seconds) {
    const microseconds = Math.round(seconds * 1e6);
    const fraction = ((microseconds % 1e6) + 1e6) % 1e6;
    const whole = new Date((microseconds - fraction) / 1000).toISOString().slice(0, 19);
    return `${whole}.${String(fraction).padStart(6, "0")}+0000`;
  },
});

(async () => {
  const { countPairs, connectedClusters, starClusters, gatherClusters, numberClusters, differingPart, toCsv, parseCsv,
    timeText } = globalThis.imgmatchReport;
  const [PER_PAGE, PER_CLUSTER, N_LINKS, N_REFERENCE, N_RADII] = [20, 30, 20, 200, 8];

  const $ = (id) => document.getElementById(id);
  const on = (id, event, action) => $(id).addEventListener(event, action);
  const clone = (id) => $(id).content.firstElementChild.cloneNode(true);
  const pick = (element, ...selectors) => selectors.map((selector) => element.querySelector(selector));
  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }
  function say(text) {
    $("notice").textContent = text;
    $("notice").hidden = !text;
  }

  if (!globalThis.DecompressionStream || !Map.groupBy) {
    say("This browser is too old to unpack the report (no DecompressionStream). Open the file in one of 2024 or later.");
    return;
  }
  const about = JSON.parse($("about").textContent);
  const isVotes = about.measure === "votes";
  const isStar = about.linkage === "star";
  const decimal = (value) => value.toLocaleString("en");
  const counted = (value, noun) => `${decimal(value)} ${noun}${value === 1 ? "" : "s"}`;
  const inUnits = (value) => counted(value, isVotes ? "vote" : "bit");
  function inBytes(value) {
    const power = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
    return `${(value / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${["bytes", "kB", "MB", "GB", "TB"][power]}`;
  }

  // The data, with nodes in the order of their rank.
  function fromBase64(text) {
    return Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }
  function unpack(id) {
    const stream = new Blob([fromBase64($(id).textContent)]).stream();
    return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();
  }
  const [{ rank, identical_files: identicalFiles, ...columns }, pairs] = await Promise.all([unpack("rows"), unpack("pairs")]);
  const n = rank.length;
  const byRow = Int32Array.from(rank);
  const given = new Int32Array(n); // the number of a node in the file
  byRow.forEach((node, i) => { given[node] = i; });
  const inOrder = ([name, values]) => [name, Array.isArray(values) ? Array.from(given, (i) => values[i]) : null];
  const rows = Object.fromEntries(Object.entries(columns).map(inOrder));
  const pairA = Int32Array.from(pairs.a, (i) => rank[i]);
  const pairB = Int32Array.from(pairs.b, (i) => rank[i]);
  const measures = pairs.measure;
  const firstOfFile = new Map(); // the first node with the same bytes
  for (const [a, b] of (identicalFiles ?? []).map((pair) => pair.map((i) => rank[i]).sort((x, y) => x - y))) {
    firstOfFile.set(b, firstOfFile.get(a) ?? a);
  }
  const isSameFile = (a, b) => (firstOfFile.get(a) ?? a) === (firstOfFile.get(b) ?? b);
  const nameOf = (node) => rows.path?.[node] ?? rows.id[node];
  const fileName = (node) => nameOf(node).split(/[\\/]/).at(-1);
  const folderOf = (node) => nameOf(node).split(/[\\/]/).slice(0, -1).join("/");

  const thumbnails = new Map();
  function image(place, name) {
    const number = Math.floor(place / about.thumbnails.page_size);
    if (place >= 0 && !thumbnails.has(number)) thumbnails.set(number, JSON.parse($(`thumbnails-${number}`).textContent));
    const data = place >= 0 && thumbnails.get(number)[place % about.thumbnails.page_size];
    if (data) return make("img", { src: `data:image/webp;base64,${data}`, alt: name, decoding: "async" });
    return make("span", { className: "missing", role: "img", ariaLabel: name }, "no thumbnail");
  }
  const imageOf = (node) => image(rows.place[node], fileName(node));

  let hashes = null;
  function hashOf(node) {
    hashes ??= fromBase64($("hashes")?.textContent ?? "");
    return hashes.subarray((given[node] * hashes.length) / n, ((given[node] + 1) * hashes.length) / n);
  }
  function bitsBetween(left, right) {
    const [a, b] = [hashOf(left), hashOf(right)];
    let sum = 0;
    for (let i = 0; i < a.length; i++) for (let bits = a[i] ^ b[i]; bits; bits &= bits - 1) sum++;
    return sum;
  }
  const findPair = (x, y) => pairA.findIndex((a, i) => (a === x && pairB[i] === y) || (a === y && pairB[i] === x));
  /** Return the distance or votes of two nodes, null where the file does not have the votes. */
  const measureOf = (left, right) => (isVotes ? (measures[findPair(left, right)] ?? null) : bitsBetween(left, right));

  // What a person chose: "kept 5" is true or false, "reviewed 5" and "apart 3 5" (not duplicates) are true.
  const choices = new Map();
  const changes = [];
  let [radius, found, clusters, shown, page, current, compared] = [about.chosen, null, [], [], 0, null, null];
  const kept = new Uint8Array(n);

  function store() {
    try {
      localStorage.setItem(`imgmatch-report:${about.digest}`, JSON.stringify({ radius, choices: [...choices] }));
    } catch { /* a sandboxed frame has no storage */ }
  }
  function restore() {
    try {
      const stored = JSON.parse(localStorage.getItem(`imgmatch-report:${about.digest}`));
      for (const [key, value] of stored?.choices ?? []) choices.set(key, value);
      radius = stored?.radius ?? radius;
    } catch { /* as above */ }
  }
  function apply(entries) {
    for (const [key, value] of entries) if (value === undefined) choices.delete(key); else choices.set(key, value);
    store();
    tally();
    drawChoices();
  }
  function change(entries) {
    changes.push(entries.map(([key]) => [key, choices.get(key)]));
    apply(entries);
  }
  const undo = () => changes.length && apply(changes.pop());
  const isReviewed = ({ nodes }) => nodes.every((node) => choices.has(`reviewed ${node}`));
  const toggle = ({ node, group }) => change([[`kept ${node}`, group.isEmpty || !kept[node]]]);
  const keepOnly = ({ node, group }) => change(group.nodes.map((other) => [`kept ${other}`, other === node]));
  const keepAll = ({ group }) => change(group.nodes.map((node) => [`kept ${node}`, true]));
  function review({ group }) {
    const value = isReviewed(group) ? undefined : true;
    change(group.nodes.map((node) => [`reviewed ${node}`, value]));
  }
  function setApart(first, node) {
    const value = choices.has(`apart ${first} ${node}`) ? undefined : true;
    const isCopy = found.root[node] === first && node !== first;
    if (first !== node) change([[`apart ${first} ${node}`, value], ...(isCopy ? [[`kept ${node}`, value]] : [])]);
  }

  // Clusters at the radius, and what is kept of them.
  const keptByRule = (node, first) => node === first || Boolean(rows.protected[node])
    || (rows.group !== null && rows.group[node] === rows.group[first]);
  function findClusters() {
    const isSkipped = (match) => match && (isVotes ? match.measure >= radius : match.measure <= radius);
    const skipped = Uint8Array.from({ length: n }, (_, node) => (isSkipped(rows.reference?.[node]) ? 1 : 0));
    const count = countPairs(measures, radius, isVotes);
    found = { count, skipped, ...(isStar ? starClusters : connectedClusters)(n, pairA, pairB, count, skipped) };
    clusters = gatherClusters(found.root).map((nodes) => {
      const last = nodes.reduce((latest, node) => Math.max(latest, found.via[node]), -1);
      return { nodes, farthest: measures[last] };
    });
  }
  function tally() {
    let [nRemoved, freed] = [0, 0];
    kept.fill(1);
    for (const group of clusters) {
      const isKept = (node) => choices.get(`kept ${node}`) ?? keptByRule(node, group.nodes[0]);
      const removed = group.nodes.filter((node) => !isKept(node));
      group.isEmpty = removed.length === group.nodes.length;
      group.freed = 0;
      for (const node of group.isEmpty ? [] : removed) {
        kept[node] = 0;
        nRemoved++;
        group.freed += rows.size?.[node] ?? 0;
      }
      freed += group.freed;
    }
    $("n-clusters").textContent = decimal(clusters.length);
    $("n-removed").textContent = decimal(nRemoved);
    $("bytes-freed").textContent = inBytes(freed);
    $("status").textContent = `${inUnits(radius)}: ${counted(clusters.length, "cluster")}, ${decimal(nRemoved)} would be removed`;
  }
  function reasonOf(node, { nodes: [first], isEmpty }) {
    if (isEmpty) return "all kept, because every image was removed";
    if (choices.has(`apart ${first} ${node}`)) return "no duplicate of the kept image";
    if (choices.has(`kept ${node}`)) return `${kept[node] ? "kept" : "removed"} by you`;
    if (node === first || rows.protected[node]) return rows.reason_kept?.[node] ?? about.keep;
    if (kept[node]) return "same group as the representative";
    return `copy of ${fileName(first)}`;
  }

  // Clusters as cards.
  function describe(node) {
    const [width, height, size, modified] = ["width", "height", "size", "modified"].map((name) => rows[name]?.[node] ?? null);
    const parts = [width && `${width}×${height}`, size !== null && inBytes(size), modified !== null && timeText(modified).slice(0, 10)];
    return make("span", {}, ...parts.filter(Boolean).map((part) => make("span", {}, part)));
  }
  function pathOf(node, other = node) {
    const [before, differing, after] = differingPart(nameOf(node), nameOf(other));
    const parts = [before, make("b", {}, differing), after];
    const href = rows.link?.[node];
    return /^(file|https?):/i.test(href ?? "") ? make("a", { href, target: "_blank", rel: "noreferrer" }, ...parts)
      : make("span", {}, ...parts);
  }
  function measureText(node, first) {
    if (node === first) return "";
    const [measure, joined] = [measureOf(node, first), measures[found.via[node]]];
    const text = isSameFile(node, first) ? "identical file" : measure === null ? "through others" : inUnits(measure);
    return measure === joined ? text : `${text}, joined at ${joined}`;
  }
  function makeCard(node, group) {
    const card = Object.assign(clone("card-template"), { node, group });
    const [thumb, state, reason, measure, facts, path] = pick(card, ".thumb", ".state", ".reason", ".measure", ".facts", ".path");
    const [first, second] = group.nodes;
    thumb.append(imageOf(node));
    measure.append(measureText(node, first));
    facts.append(describe(node));
    path.append(pathOf(node, node === first ? second : first));
    card.update = () => {
      card.classList.toggle("kept", kept[node] === 1);
      state.textContent = kept[node] ? "✓ kept" : "✕ removed";
      state.ariaLabel = `${kept[node] ? "kept" : "removed"}: ${fileName(node)}`;
      reason.textContent = reasonOf(node, group);
    };
    card.update();
    return card;
  }
  function makeCluster(group) {
    const element = Object.assign(clone("cluster-template"), { group, ariaLabel: `Cluster of ${fileName(group.nodes[0])}` });
    const [title, note, box, warning, list, more] = pick(element, "h3", ".note", "input", ".warning", ".cards", ".more");
    element.style.setProperty("--n", group.nodes.length);
    title.textContent = counted(group.nodes.length, "image");
    note.textContent = `farthest ${inUnits(group.farthest)}`;
    element.grow = (count) => {
      const shownOf = list.childElementCount;
      list.append(...group.nodes.slice(shownOf, shownOf + count).map((node) => makeCard(node, group)));
      more.hidden = list.childElementCount === group.nodes.length;
      more.textContent = `Show the other ${decimal(group.nodes.length - list.childElementCount)}`;
    };
    element.update = () => {
      warning.hidden = !group.isEmpty;
      box.checked = isReviewed(group);
      element.classList.toggle("reviewed", box.checked);
    };
    element.grow(PER_CLUSTER);
    element.update();
    return element;
  }
  function filterClusters() {
    const [text, folder, from, to, sort] = ["text", "folder", "from", "to", "sort"].map((id) => $(id).value);
    const [across, mixed, undecided] = ["across", "mixed", "undecided"].map((id) => $(id).checked);
    const [part, root] = [text.toLowerCase(), `${folder.replace(/\/$/, "")}/`];
    const differ = (nodes, valueOf) => nodes.some((node) => valueOf(node) !== valueOf(nodes[0]));
    shown = clusters.filter((group) => (!part || group.nodes.some((node) => nameOf(node).toLowerCase().includes(part)))
      && (!folder || group.nodes.some((node) => `${folderOf(node)}/`.startsWith(root)))
      && (!from || group.farthest >= Number(from)) && (!to || group.farthest <= Number(to))
      && (!across || differ(group.nodes, folderOf))
      && (!mixed || differ(group.nodes, (node) => `${rows.width?.[node]}×${rows.height?.[node]}`))
      && (!undecided || !(isReviewed(group) || group.nodes.some((node) => choices.has(`kept ${node}`)))));
    const order = {
      copies: (a, b) => b.nodes.length - a.nodes.length,
      farthest: (a, b) => (isVotes ? a.farthest - b.farthest : b.farthest - a.farthest),
      bytes: (a, b) => b.freed - a.freed,
      path: (a, b) => (nameOf(a.nodes[0]) < nameOf(b.nodes[0]) ? -1 : 1),
    }[sort];
    shown.sort((a, b) => order(a, b) || a.nodes[0] - b.nodes[0]);
    page = 0;
    drawList();
  }
  function drawList() {
    const nPages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    page = Math.max(0, Math.min(page, nPages - 1));
    $("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeCluster));
    mark($("list").querySelector(".card"));
    $("found").textContent = shown.length === clusters.length ? counted(shown.length, "cluster")
      : `${decimal(shown.length)} of ${counted(clusters.length, "cluster")}`;
    $("page").textContent = `${decimal(page + 1)} of ${decimal(nPages)}`;
    [$("pages").hidden, $("previous").disabled, $("next").disabled] = [nPages < 2, page === 0, page === nPages - 1];
  }
  function drawChoices() {
    for (const element of $("list").querySelectorAll(".card, .cluster")) element.update();
    $("undo").disabled = !changes.length;
    if ($("compare").open) drawCompare();
  }
  function turnPage(step) {
    page += step;
    drawList();
    select(current);
  }
  function mark(card) {
    current?.classList.remove("current");
    current = card;
    current?.classList.add("current");
  }
  function select(card) {
    if (!card) return;
    mark(card);
    if (!$("compare").open) card.querySelector(".thumb").focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  // Decisions, out and in.
  function decisions() {
    const numbers = numberClusters(found.root, found.skipped, byRow, rows.row);
    const groups = new Map(clusters.flatMap((group) => group.nodes.map((node) => [node, group])));
    const isWanted = (node) => groups.has(node) && (!$("only-reviewed").checked || isReviewed(groups.get(node)));
    return [...byRow].filter(isWanted).map((node) => {
      const [first] = groups.get(node).nodes;
      return {
        path: nameOf(node), id: rows.id[node], cluster_id: numbers.get(first), representative_id: rows.id[first],
        [about.measure]: node !== first ? measureOf(node, first) : isVotes ? null : 0, kept: kept[node] === 1,
        reason: reasonOf(node, groups.get(node)), decided_by: choices.has(`kept ${node}`) ? "person" : "rule",
        reviewed: choices.has(`reviewed ${node}`), size: rows.size?.[node] ?? null,
        modified: (rows.modified?.[node] ?? null) === null ? null : timeText(rows.modified[node]),
      };
    });
  }
  function download(name, text) {
    const href = URL.createObjectURL(new Blob([text]));
    make("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }
  const columnsOut = ["path", "id", "cluster_id", "representative_id", about.measure, "kept", "reason", "decided_by", "reviewed",
    "size", "modified"];
  function apartPairs() {
    const pairsApart = [...choices.keys()].filter((key) => key.startsWith("apart ")).map((key) => key.split(" ").slice(1));
    return pairsApart.map(([left, right]) => ({ left_id: rows.id[left], right_id: rows.id[right] }));
  }
  /** Take over the rows of a file that a person decided, or that are decided otherwise here. */
  async function importFile([file]) {
    try {
      const text = await file.text();
      const table = /^\s*\[/.test(text) ? JSON.parse(text) : parseCsv(text);
      const nodes = new Map(rows.id.map((id, node) => [id, node]));
      const known = table.filter((row) => nodes.has(row.id ?? row.path));
      const isTrue = (value) => String(value).toLowerCase() === "true";
      change(known.flatMap((row) => {
        const node = nodes.get(row.id ?? row.path);
        const isChoice = row.decided_by === "person" || isTrue(row.kept) !== (kept[node] === 1);
        return [...(isChoice ? [[`kept ${node}`, isTrue(row.kept)]] : []),
          ...(isTrue(row.reviewed) ? [[`reviewed ${node}`, true]] : [])];
      }));
      say(`${file.name}: ${counted(known.length, "row")} read, ${decimal(table.length - known.length)} not in this report`);
    } catch (error) {
      say(`${file.name} cannot be read: ${error.message}`);
    }
  }

  // The radius: chart, table, and the pairs around it.
  const { profile } = about;
  const radii = isVotes ? profile.min_votes : profile.radius;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
  let chart = null;
  function drawChart() {
    chart?.destroy();
    const lines = { removed: profile.n_removed, clusters: profile.n_clusters, largest: profile.n_largest, unrelated: profile.n_unrelated };
    const places = [...radii.keys()].sort((a, b) => radii[a] - radii[b]);
    const line = (label) => ({ label, stroke: color(label), width: 1.5, points: { show: false }, dash: label === "unrelated" ? [4, 4] : [] });
    const axis = { stroke: color("muted"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const draw = ({ ctx, bbox, valToPos }) => {
      ctx.fillStyle = color("accent");
      ctx.fillRect(valToPos(radius, "x", true) - 1, bbox.top, 2, bbox.height);
    };
    chart = new uPlot({
      width: $("chart").clientWidth, height: 230, cursor: { y: false, drag: { x: false } }, hooks: { draw: [draw] },
      scales: { x: { time: false }, y: { range: [0, 1.05 * Math.max(1, ...lines.removed, ...lines.clusters)] } },
      axes: [axis, { ...axis, size: 56, values: (_, ticks) => ticks.map(decimal) }],
      series: [{ label: isVotes ? "votes" : "radius" }, ...Object.keys(lines).map(line)],
    }, [radii, ...Object.values(lines)].map((values) => places.map((i) => values[i])), $("chart"));
    chart.over.addEventListener("click", ({ offsetX }) => setRadius(Math.round(chart.posToVal(offsetX, "x"))));
  }
  function drawProfile() {
    const step = 2 ** Math.ceil(Math.log2(Math.max(1, radii.length / N_RADII)));
    const chosen = radii.indexOf(radius);
    const text = (value) => (value === null ? "–" : value < 10 ? String(Math.round(10 * value) / 10) : decimal(Math.round(value)));
    $("profile").replaceChildren(...[...radii.keys()].filter((i) => i % step === 0 || i === chosen).map((i) => {
      const button = make("button", { type: "button", onclick: () => setRadius(radii[i]) }, `${i === chosen ? "→ " : ""}${radii[i]}`);
      const values = ["n_pairs", "n_clusters", "n_removed", "n_largest", "n_unrelated"].map((name) => text(profile[name][i]));
      return make("tr", { ariaCurrent: i === chosen ? "true" : null }, make("th", { scope: "row" }, button),
        ...values.map((value) => make("td", {}, value)));
    }));
  }
  function makeLink(measure, images, paths, onclick) {
    const element = clone("link-template");
    const [thumb, value, ...places] = pick(element, ".thumb", ".measure", ".path", ".path + .path");
    thumb.append(...images);
    Object.assign(thumb, { onclick });
    value.append(measure);
    places.forEach((place, i) => place.append(paths[i]));
    return element;
  }
  function drawLinks() {
    const isLink = new Set(found.links);
    const [inside, outside] = [[], []];
    for (let pair = found.count - 1; pair >= 0 && inside.length < N_LINKS; pair--) if (isLink.has(pair)) inside.push(pair);
    for (let pair = found.count; pair < measures.length && outside.length < N_LINKS; pair++) {
      const [left, right] = [pairA[pair], pairB[pair]];
      if (found.root[left] !== found.root[right] && !found.skipped[left] && !found.skipped[right]) outside.push(pair);
    }
    const link = (pair) => {
      const [left, right] = [pairA[pair], pairB[pair]];
      return makeLink(inUnits(measures[pair]), [imageOf(left), imageOf(right)], [pathOf(left, right), pathOf(right, left)],
        () => compare([left, right]));
    };
    $("inside").replaceChildren(...inside.map(link));
    $("outside").replaceChildren(...outside.map(link));
  }
  function drawReference() {
    const nodes = [...byRow].filter((node) => found.skipped[node]);
    [$("reference").hidden, $("reference-tile").hidden] = [!nodes.length, !rows.reference];
    $("n-reference").textContent = decimal(nodes.length);
    $("reference-note").textContent = `${counted(Math.min(nodes.length, N_REFERENCE), "image")} of ${decimal(nodes.length)}`;
    $("reference-list").replaceChildren(...nodes.slice(0, N_REFERENCE).map((node) => {
      const { id, measure, place } = rows.reference[node];
      return makeLink(inUnits(measure), [imageOf(node), image(place, id)], [pathOf(node), `in the reference: ${id}`], null);
    }));
  }
  function setRadius(value) {
    const start = performance.now();
    $("radius").value = value;
    radius = Number($("radius").value);
    $("radius-value").textContent = inUnits(radius);
    findClusters();
    tally();
    for (const draw of [filterClusters, drawProfile, drawLinks, drawReference]) draw();
    document.body.dataset.milliseconds = Math.round(performance.now() - start);
    store();
    requestAnimationFrame(() => chart?.redraw(false, false)); // before its first frame, redraw() loses the scale of x
  }

  // Two images side by side.
  let timer = 0;
  function compare(nodes = null) {
    if (!nodes && !current) return;
    if (!nodes && current.node === current.group.nodes[0]) mark(current.nextElementSibling);
    compared = nodes;
    drawCompare();
    $("compare").showModal();
  }
  const comparedNodes = () => compared ?? [current.group.nodes[0], current.node];
  function drawCompare() {
    const [left, right] = comparedNodes();
    const pair = findPair(left, right);
    const frames = [left, right].map((node) => make("div", { className: "frame" }, imageOf(node)));
    const figures = [[left, right], [right, left]].map(([node, other], i) => {
      if (rows.width?.[node]) frames[i].style.setProperty("--ratio", rows.width[node] / rows.height[node]);
      return make("figure", {}, frames[i], make("figcaption", {}, make("p", { className: "path" }, pathOf(node, other)), describe(node)));
    });
    if (isVotes && pair >= 0 && pairs.scale) frames[pairA[pair] === left ? 1 : 0].append(placement(pair));
    const width = Math.sqrt(about.hash_bits ?? 0.5);
    $("stage").replaceChildren(...figures, ...(Number.isInteger(width) ? [drawBits(left, right, width)] : []));
    $("compare-note").textContent = [measureText(right, left), found.root[left] === right || found.root[right] === left
      ? kept[right] ? "the right one is kept" : "the right one would be removed" : ""].filter(Boolean).join(" · ");
    $("compare-toggle").hidden = Boolean(compared);
    $("compare-toggle").textContent = kept[right] ? "Remove" : "Keep";
    $("compare-apart").ariaPressed = String(choices.has(`apart ${left} ${right}`));
  }
  /** Return a frame where the left image of a pair, turned, lies in the right one. */
  function placement(pair) {
    const [a, b, element] = [pairA[pair], pairB[pair], make("div", { className: "placement", title: pairs.turn[pair] })];
    const sides = [rows.width[a], rows.height[a]];
    if (["rotated_90", "rotated_270", "transposed", "transversed"].includes(pairs.turn[pair])) sides.reverse();
    const unit = (pairs.scale[pair] * Math.max(rows.width[b], rows.height[b])) / Math.max(...sides);
    const shares = { left: pairs.shift_x[pair], top: pairs.shift_y[pair], width: (unit * sides[0]) / rows.width[b],
      height: (unit * sides[1]) / rows.height[b] };
    for (const [name, share] of Object.entries(shares)) element.style[name] = `${100 * share}%`;
    return element;
  }
  function drawBits(left, right, width) {
    const [a, b] = [hashOf(left), hashOf(right)];
    const ofBit = about.hash_type.startsWith("imagehash") ? (i) => 7 - (i & 7) : (i) => i & 7; // which bit of a byte is first
    const bit = (bytes, i) => (bytes[i >> 3] >> ofBit(i)) & 1;
    const caption = `${bitsBetween(left, right)} of ${about.hash_bits} bits differ`;
    const canvas = make("canvas", { width: 8 * width, height: 8 * width, role: "img", ariaLabel: caption });
    const context = canvas.getContext("2d");
    for (let i = 0; i < about.hash_bits; i++) {
      const [x, y] = [8 * (i % width), 8 * Math.floor(i / width)];
      context.fillStyle = color(`bit-${bit(a, i)}`);
      context.fillRect(x, y, 8, 8);
      context.fillStyle = color("accent");
      if (bit(a, i) !== bit(b, i)) context.fillRect(x + 1, y + 1, 6, 6);
    }
    return make("figure", { className: "bits" }, canvas, make("figcaption", {}, `The left hash; ${caption}, marked by squares`));
  }
  function blink(isOn = !timer) {
    clearInterval(timer);
    timer = isOn ? setInterval(() => $("stage").classList.toggle("swapped"), 600) : 0;
    $("stage").classList.toggle("blink", isOn);
    $("blink").ariaPressed = String(isOn);
  }

  // Keys and buttons.
  const clusterOf = (card) => card.closest(".cluster");
  const whileOpen = (action) => () => $("compare").open && action();
  const onCard = (action) => () => current && !compared && action(current);
  const keys = {
    j: onCard((card) => select(clusterOf(card).nextElementSibling?.querySelector(".card"))),
    k: onCard((card) => select(clusterOf(card).previousElementSibling?.querySelector(".card"))),
    ArrowRight: onCard((card) => select(card.nextElementSibling)), ArrowLeft: onCard((card) => select(card.previousElementSibling)),
    " ": onCard(toggle), K: onCard(keepOnly), A: onCard(keepAll), r: onCard(review), u: undo,
    d: () => (compared || current) && setApart(...comparedNodes()),
    Enter: () => $("compare").open || compare(), b: whileOpen(blink), n: () => turnPage(1), p: () => turnPage(-1),
    "/": () => $("text").focus(), "?": () => $("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const isNative = target.closest("input:not([type=checkbox]), select") || ([" ", "Enter"].includes(key)
      && !target.closest(".thumb") && target.closest("button, a, input, summary, label"));
    if (event.ctrlKey || event.metaKey || event.altKey || isNative || $("help").open || !keys[key]) return;
    event.preventDefault();
    keys[key]();
    if ($("compare").open) drawCompare();
  });
  $("list").addEventListener("click", ({ target }) => {
    const card = target.closest(".card");
    if (card) mark(card);
    if (target.closest(".thumb")) compare();
    if (target.closest(".state")) toggle(card);
    if (target.closest(".more")) clusterOf(target).grow(1000);
  });
  on("list", "change", ({ target }) => review(clusterOf(target)));
  on("list", "focusin", ({ target }) => target.closest(".card") && mark(target.closest(".card")));
  let isWaiting = false;
  on("radius", "input", () => {
    if (!isWaiting) requestAnimationFrame(() => { isWaiting = false; setRadius($("radius").value); });
    isWaiting = true;
  });
  for (const id of ["text", "folder", "from", "to", "sort", "across", "mixed", "undecided"]) on(id, "input", filterClusters);
  on("filters", "submit", (event) => event.preventDefault());
  const buttons = {
    "save-csv": () => download("decisions.csv", toCsv(columnsOut, decisions())),
    "save-json": () => download("decisions.json", `${JSON.stringify(decisions(), null, 1)}\n`),
    "save-apart": () => download("not_duplicates.csv", toCsv(["left_id", "right_id"], apartPairs())),
    undo, "show-help": keys["?"], previous: keys.p, next: keys.n, blink: () => blink(), "compare-toggle": keys[" "],
    "compare-apart": keys.d,
  };
  for (const [id, action] of Object.entries(buttons)) on(id, "click", action);
  on("import", "change", ({ target }) => importFile(target.files));
  on("compare", "close", () => { blink(false); compared = null; select(current); });
  $("folders").append(...[...new Set(rows.id.keys().map(folderOf))].slice(0, 500).map((value) => make("option", { value })));

  restore();
  setRadius(radius);
  drawChart();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
  addEventListener("resize", () => chart.setSize({ width: $("chart").clientWidth, height: 230 }));
  document.body.dataset.ready = "true";
})();
