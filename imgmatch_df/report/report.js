/* The report page: clusters at every radius, a person's choices, and files of decisions. It requests nothing.
 *
 * Nodes are rows that have a partner, numbered by their rank: 0 is kept before all others, so that the representative
 * of a cluster is its smallest node. Pairs are sorted, nearest first; those of a radius are the first ones.
 */
"use strict";

globalThis.imgmatchReport = (() => {
  /** Return how many of the sorted pairs hold at a value: a maximum distance, or a minimum number of votes. */
  function countPairs(measure, value, isVotes) {
    let low = 0;
    let high = measure.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isVotes ? measure[middle] >= value : measure[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Join nodes by the first `count` pairs: the representative of each node, and the pair by which it joined that. */
  function connectedClusters(n, a, b, count, skipped) {
    const root = new Int32Array(n).map((_, node) => node);
    const above = new Int32Array(n).fill(-1); // the representative of the other side, when a cluster joined it
    const link = new Int32Array(n).fill(-1);
    const via = new Int32Array(n).fill(-1);
    for (let pair = 0; pair < count; pair++) {
      let left = a[pair];
      let right = b[pair];
      if (skipped[left] || skipped[right]) continue;
      while (root[left] !== left) left = root[left] = root[root[left]];
      while (root[right] !== right) right = root[right] = root[root[right]];
      if (left === right) continue;
      const high = Math.max(left, right);
      root[high] = above[high] = Math.min(left, right);
      link[high] = pair;
    }
    for (let node = 0; node < n; node++) {
      const up = above[node];
      if (up < 0) continue;
      root[node] = root[up];
      via[node] = above[up] < 0 ? link[node] : via[up];
    }
    return { root, via, link };
  }

  /** Let each node found a cluster, unless it is in one, and take the partners that are in none. */
  function starClusters(n, a, b, count, skipped) {
    const start = new Int32Array(n + 1);
    for (let pair = 0; pair < count; pair++) {
      start[a[pair] + 1]++;
      start[b[pair] + 1]++;
    }
    for (let node = 0; node < n; node++) start[node + 1] += start[node];
    const next = start.slice();
    const pairs = new Int32Array(2 * count);
    for (let pair = 0; pair < count; pair++) {
      pairs[next[a[pair]]++] = pair;
      pairs[next[b[pair]]++] = pair;
    }
    const root = new Int32Array(n).fill(-1);
    const via = new Int32Array(n).fill(-1);
    for (let node = 0; node < n; node++) {
      if (root[node] >= 0) continue;
      root[node] = node;
      for (let place = skipped[node] ? start[node + 1] : start[node]; place < start[node + 1]; place++) {
        const pair = pairs[place];
        const other = a[pair] === node ? b[pair] : a[pair];
        if (root[other] >= 0 || skipped[other]) continue;
        root[other] = node;
        via[other] = pair;
      }
    }
    return { root, via, link: via };
  }

  /** Return the clusters of at least two nodes, each as its nodes in ascending order. */
  function gatherClusters(root) {
    const size = new Int32Array(root.length);
    for (const node of root) size[node]++;
    const clusters = [];
    const filled = new Int32Array(root.length).fill(-1);
    for (let node = 0; node < root.length; node++) {
      const of = root[node];
      if (size[of] < 2) continue;
      if (node === of) {
        filled[of] = clusters.length;
        clusters.push([]);
      }
      clusters[filled[of]].push(node);
    }
    return clusters;
  }

  /** Return text as [before, differing, after], cut where it differs from another text. */
  function differingPart(text, other) {
    const [left, right] = [Array.from(text), Array.from(other)];
    const shortest = Math.min(left.length, right.length);
    let before = 0;
    while (before < shortest && left[before] === right[before]) before++;
    let after = 0;
    while (after < shortest - before && left.at(-1 - after) === right.at(-1 - after)) after++;
    const end = left.length - after;
    return [left.slice(0, before), left.slice(before, end), left.slice(end)].map((part) => part.join(""));
  }

  /** Return rows as CSV (RFC 4180) with a header; null is an empty field. */
  function toCsv(names, rows) {
    const field = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))]
      .map((fields) => `${fields.map(field).join(",")}\n`).join("");
  }

  /** Return the rows of a CSV text as objects of texts. */
  function parseCsv(text) {
    const lines = [[]];
    const fields = /("(?:[^"]|"")*"|(?!")[^,\r\n]*)(,|\r\n|\n|\r|$)/gy;
    for (let at = text.startsWith("\ufeff") ? 1 : 0; at < text.length;) {
      fields.lastIndex = at;
      const found = fields.exec(text);
      if (!found) throw new Error(`a quote is not closed in line ${lines.length}`);
      const [whole, field, end] = found;
      lines.at(-1).push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field);
      at += whole.length;
      if (end === "," && at === text.length) lines.at(-1).push("");
      if (end !== "," && at < text.length) lines.push([]);
    }
    const [names, ...rows] = lines;
    return rows.filter((row) => row.length > 1 || row[0]).map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
  }

  return Object.freeze({
    countPairs, connectedClusters, starClusters, gatherClusters, differingPart, toCsv, parseCsv,
  });
})();

(async () => {
  const pure = globalThis.imgmatchReport;
  const PER_PAGE = 20;
  const PER_CLUSTER = 40; // images drawn at first; a button draws the rest
  const N_LINKS = 20;
  const N_LISTED = 200;
  const N_PROFILE = 8;
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about").textContent);
  const isVotes = about.measure === "votes";
  const measureName = isVotes ? "votes" : "distance";
  const number = (value) => value.toLocaleString("en");
  const inWords = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
  const inUnits = (value) => (isVotes ? inWords(value, "vote") : inWords(value, "bit"));
  const inBytes = (n) => {
    const power = n < 1e3 ? 0 : Math.min(4, Math.floor(Math.log10(n) / 3));
    return `${(n / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${["bytes", "kB", "MB", "GB", "TB"][power]}`;
  };

  /** Return a new element; names with a dash, `role` and `for` are attributes, others are properties. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  function fromBase64(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function unpack(id) {
    const packed = new Blob([fromBase64($(id).textContent)]).stream();
    return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).json();
  }

  function fail(message) {
    $("problem").textContent = message;
    $("problem").hidden = false;
  }

  if (typeof DecompressionStream === "undefined") {
    fail("This browser cannot unpack the report: it has no DecompressionStream. Open the file in a browser of 2023 or later.");
    return;
  }
  const [columns, listed] = await Promise.all([unpack("rows"), unpack("pairs")]);

  // Nodes in the order of their rank.
  const n = columns.rank.length;
  const order = new Int32Array(n);
  columns.rank.forEach((rank, node) => { order[rank] = node; });
  const rows = {};
  for (const [name, values] of Object.entries(columns)) {
    if (name !== "identical_files") rows[name] = values && Array.from(order, (node) => values[node]);
  }
  const byRow = Int32Array.from(columns.rank); // the ranks in the order of the frame
  const pairA = Int32Array.from(listed.a, (node) => columns.rank[node]);
  const pairB = Int32Array.from(listed.b, (node) => columns.rank[node]);
  const measures = Float64Array.from(listed.measure);
  const sameFile = new Int32Array(n).map((_, node) => node); // the first node with the same bytes
  for (const [a, b] of (columns.identical_files ?? []).map((pair) => pair.map((node) => columns.rank[node]))) {
    sameFile[Math.max(a, b)] = sameFile[Math.min(a, b)];
  }
  const nameOf = (node) => rows.path?.[node] ?? rows.id[node];
  const fileName = (node) => nameOf(node).split(/[\\/]/).at(-1);
  const folderOf = (node) => nameOf(node).split(/[\\/]/).slice(0, -1).join("/");
  const isWithin = (value) => (isVotes ? value >= radius : value <= radius);

  const pagesOfThumbnails = new Map();
  function thumbnail(place) {
    if (place < 0) return "";
    const { page_size: size } = about.thumbnails;
    const page = Math.floor(place / size);
    if (!pagesOfThumbnails.has(page)) {
      pagesOfThumbnails.set(page, JSON.parse($(`thumbnails-${page}`).textContent));
    }
    const text = pagesOfThumbnails.get(page)[place % size];
    return text && `data:image/webp;base64,${text}`;
  }
  function image(node) {
    const source = thumbnail(rows.place[node]);
    return source ? make("img", { src: source, alt: fileName(node), decoding: "async" })
      : make("span", { className: "missing", role: "img", "aria-label": fileName(node) }, "no thumbnail");
  }

  let hashes = null;
  const hashBits = (node) => {
    hashes ??= fromBase64($("hashes")?.textContent ?? "");
    const width = hashes.length / n;
    return hashes.subarray(order[node] * width, (order[node] + 1) * width);
  };
  function bitsBetween(left, right) {
    const other = hashBits(right);
    return hashBits(left).reduce((sum, byte, i) => {
      let bits = byte ^ other[i];
      for (; bits; bits &= bits - 1) sum++;
      return sum;
    }, 0);
  }

  // What a person decides, by node: `kept`, `reviewed`, and by "node,node": `apart`, which are no duplicates.
  const choices = { kept: new Map(), reviewed: new Map(), apart: new Map() };
  const done = [];
  const storageKey = `imgmatch-report:${about.digest}`;
  let radius = about.chosen;
  let clusters = [];
  let found = null;
  let holding = 0;
  let kept = new Uint8Array(n);
  let shown = [];
  let page = 0;
  let cards = [];
  let current = { cluster: 0, image: 0 };

  function save() {
    const state = { radius, ...Object.fromEntries(Object.entries(choices).map(([kind, map]) => [kind, [...map]])) };
    try {
      localStorage.setItem(storageKey, JSON.stringify(state));
    } catch { /* a sandboxed frame has no storage, and a full one keeps what it has */ }
  }
  function restore() {
    try {
      const state = JSON.parse(localStorage.getItem(storageKey));
      if (!state) return;
      radius = state.radius;
      for (const [kind, map] of Object.entries(choices)) for (const [key, value] of state[kind]) map.set(key, value);
    } catch { /* as above */ }
  }

  function put(entries) {
    for (const [kind, key, value] of entries) {
      if (value === undefined) choices[kind].delete(key);
      else choices[kind].set(key, value);
    }
    save();
    tally();
    refresh();
  }
  function change(entries) {
    done.push(entries.map(([kind, key]) => [kind, key, choices[kind].get(key)]));
    put(entries);
  }

  const keptByRule = (node, first) => node === first || Boolean(rows.protected[node])
    || (rows.group !== null && rows.group[node] === rows.group[first]);

  function cluster() {
    holding = pure.countPairs(measures, radius, isVotes);
    const skipped = new Uint8Array(n);
    if (rows.reference) rows.reference.forEach((match, node) => { skipped[node] = match && isWithin(match.measure) ? 1 : 0; });
    const join = about.linkage === "star" ? pure.starClusters : pure.connectedClusters;
    found = { ...join(n, pairA, pairB, holding, skipped), skipped };
    clusters = pure.gatherClusters(found.root).map((nodes) => ({ nodes }));
  }
  /** Count what would be removed. A cluster of which a person keeps nothing is kept whole. */
  function tally() {
    kept.fill(1);
    let [nRemoved, freed] = [0, 0];
    for (const group of clusters) {
      const [first] = group.nodes;
      const isKept = (node) => choices.kept.get(node) ?? keptByRule(node, first);
      group.isEmpty = !group.nodes.some(isKept);
      group.freed = 0;
      for (const node of group.isEmpty ? [] : group.nodes) {
        if (isKept(node)) continue;
        kept[node] = 0;
        nRemoved++;
        group.freed += rows.size?.[node] ?? 0;
      }
      freed += group.freed;
    }
    drawTiles(nRemoved, freed);
  }

  function drawTiles(nRemoved, freed) {
    const { counts } = about;
    const nReference = found.skipped.reduce((sum, skip) => sum + skip, 0);
    const nLeftOut = about.left_out.reduce((sum, { count }) => sum + count, 0);
    const tiles = [
      ["images", number(counts.rows)], ["clusters", number(clusters.length)], ["would be removed", number(nRemoved)],
      ["bytes freed", inBytes(freed)], rows.reference && ["in the reference", number(nReference)],
      ["failed", number(counts.failed)], ["flat", number(counts.flat)], ["left out", number(nLeftOut)],
    ].filter(Boolean);
    $("tiles").replaceChildren(...tiles.map(([name, value]) => make("div", {},
      make("dt", {}, name), make("dd", { id: `tile-${name.replaceAll(" ", "-")}` }, value))));
    const text = `${inWords(clusters.length, "cluster")}, ${number(nRemoved)} would be removed`;
    $("status").textContent = `${isVotes ? "At least" : "Within"} ${inUnits(radius)}: ${text}`;
    document.body.dataset.ready = "true";
  }

  function measureTo(node, first) {
    if (isVotes || about.linkage === "star") return found.via[node] < 0 ? null : pairMeasure(node, first);
    return bitsBetween(node, first);
  }
  const findPair = (left, right) => pairA.findIndex((a, i) => (a === left && pairB[i] === right)
    || (a === right && pairB[i] === left));
  function pairMeasure(left, right) {
    const via = found.via[left];
    if (via >= 0 && (pairA[via] === right || pairB[via] === right)) return measures[via];
    const pair = findPair(left, right);
    return pair < 0 ? null : measures[pair];
  }
  const joinedAt = (node) => (found.via[node] < 0 ? null : measures[found.via[node]]);

  /** Return why a node of a cluster is kept or removed, in words. */
  function reasonOf(node, { nodes: [first], isEmpty }) {
    if (isEmpty) return "every image of the cluster was removed, so all are kept";
    const choice = choices.kept.get(node);
    if (choices.apart.has(`${first},${node}`)) return "no duplicate of the kept image";
    if (choice !== undefined && choice !== keptByRule(node, first)) return `${choice ? "kept" : "removed"} by you`;
    if (rows.protected[node]) return "protected";
    if (node === first) return rows.reason_kept?.[node] ?? about.keep;
    if (kept[node]) return "same group as the kept image";
    if (sameFile[node] === sameFile[first]) return `identical file of ${fileName(first)}`;
    const measure = measureTo(node, first);
    return measure === null ? `copy of ${fileName(first)}, through others`
      : `${inUnits(measure)} ${isVotes ? "for" : "from"} ${fileName(first)}`;
  }

  function describe(node) {
    const [width, height, size, modified] = ["width", "height", "size", "modified"].map((name) => rows[name]?.[node]);
    return [
      width ? `${width}×${height}` : "", size === null || size === undefined ? "" : inBytes(size),
      modified === null || modified === undefined ? "" : new Date(modified * 1000).toISOString().slice(0, 10),
    ].filter(Boolean).join(" · ");
  }
  function pathElement(node, other) {
    const [before, differing, after] = pure.differingPart(nameOf(node), other === undefined ? nameOf(node) : nameOf(other));
    const link = rows.link?.[node];
    const parts = [before, differing && make("b", {}, differing), after].filter(Boolean);
    return /^(file|https?):/i.test(link ?? "") ? make("a", { href: link, target: "_blank", rel: "noreferrer" }, ...parts)
      : make("span", {}, ...parts);
  }

  /** Return the card of an image of a cluster; `update` shows a new choice in it. */
  function makeCard(node, group) {
    const [first] = group.nodes;
    const state = make("button", { type: "button", className: "state", onclick: () => toggle(node, group) });
    const thumb = make("button", { type: "button", className: "thumb" }, image(node));
    const reason = make("p", { className: "reason" });
    const measure = node === first ? "" : sameFile[node] === sameFile[first] ? "identical file"
      : measureTo(node, first) === null ? "" : inUnits(measureTo(node, first));
    const joined = joinedAt(node) === null || isVotes ? "" : `joined at ${joinedAt(node)}`;
    const element = make("li", { className: "card" }, thumb,
      make("p", { className: "line" }, state, make("span", {}, [measure, joined].filter(Boolean).join(" · "))),
      make("p", {}, describe(node)),
      make("p", { className: "path" }, pathElement(node, node === first ? group.nodes[1] : first)), reason);
    const update = () => {
      element.classList.toggle("kept", kept[node] === 1);
      state.textContent = kept[node] ? "✓ kept" : "✕ removed";
      state.setAttribute("aria-label", `${kept[node] ? "kept" : "removed"}: ${fileName(node)}`);
      reason.textContent = reasonOf(node, group);
    };
    update();
    return { node, group, element, thumb, update };
  }
  function makeCluster(group, at) {
    const list = make("ul", { className: "cards" });
    const grow = (count) => {
      const more = group.nodes.slice(list.childElementCount, list.childElementCount + count);
      const made = more.map((node) => makeCard(node, group));
      list.append(...made.map(({ element }) => element));
      made.forEach((card, i) => {
        const image = cards[at].length + i;
        card.thumb.onclick = () => { select(at, image); openCompare(); };
        card.thumb.onfocus = () => mark(at, image);
      });
      cards[at].push(...made);
      button.hidden = list.childElementCount === group.nodes.length;
      button.textContent = `Show ${number(Math.min(1000, group.nodes.length - list.childElementCount))} more`;
    };
    const button = make("button", { type: "button", className: "more", onclick: () => grow(1000) });
    const warning = make("p", { className: "warning" }, "You removed every image of this cluster, so all of them are kept.");
    const reviewed = make("input", { type: "checkbox", onchange: () => review(group) });
    const title = make("h3", {}, inWords(group.nodes.length, "image"), make("span", {}, group.summary));
    const element = make("article", { className: "cluster", "aria-label": `Cluster of ${fileName(group.nodes[0])}` },
      make("header", {}, title, make("label", {}, reviewed, " reviewed")), warning, list, button);
    cards[at] = [];
    grow(PER_CLUSTER);
    group.update = () => {
      warning.hidden = !group.isEmpty;
      reviewed.checked = isReviewed(group);
      element.classList.toggle("reviewed", reviewed.checked);
    };
    group.update();
    return element;
  }

  // The list of clusters.
  function filterClusters() {
    const [text, folder] = [$("text").value.toLowerCase(), $("folder").value];
    const [from, to] = [$("from").value, $("to").value].map((value) => (value === "" ? null : Number(value)));
    const differ = (nodes, value) => nodes.some((node) => value(node) !== value(nodes[0]));
    shown = clusters.filter((group) => (!text || group.nodes.some((node) => nameOf(node).toLowerCase().includes(text)))
      && (!folder || group.nodes.some((node) => `${folderOf(node)}/`.startsWith(`${folder.replace(/\/$/, "")}/`)))
      && (from === null || group.farthest >= from) && (to === null || group.farthest <= to)
      && (!$("across").checked || differ(group.nodes, folderOf))
      && (!$("mixed").checked || differ(group.nodes, (node) => `${rows.width?.[node]}x${rows.height?.[node]}`))
      && (!$("undecided").checked || !(isReviewed(group) || group.nodes.some((node) => choices.kept.has(node)))));
    const orders = {
      copies: (a, b) => b.nodes.length - a.nodes.length,
      farthest: (a, b) => (isVotes ? a.farthest - b.farthest : b.farthest - a.farthest),
      bytes: (a, b) => b.freed - a.freed,
      path: (a, b) => (nameOf(a.nodes[0]) < nameOf(b.nodes[0]) ? -1 : 1),
    };
    shown.sort((a, b) => orders[$("sort").value](a, b) || a.nodes[0] - b.nodes[0]);
    page = 0;
    current = { cluster: 0, image: 0 };
    drawList();
  }
  function drawList() {
    const nPages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    page = Math.max(0, Math.min(page, nPages - 1));
    cards = [];
    $("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeCluster));
    $("found").textContent = shown.length === clusters.length ? inWords(shown.length, "cluster")
      : `${number(shown.length)} of ${inWords(clusters.length, "cluster")}`;
    $("pages").hidden = nPages < 2;
    $("page").textContent = `${number(page + 1)} of ${number(nPages)}`;
    [$("previous").disabled, $("next").disabled] = [page === 0, page === nPages - 1];
    mark(current.cluster, current.image);
  }
  function refresh() {
    for (const card of cards.flat()) card.update();
    for (const group of shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE)) group.update();
    $("undo").disabled = done.length === 0;
    if ($("compare").open) drawCompare();
  }
  function turnPage(step) {
    page += step;
    current = { cluster: 0, image: 0 };
    drawList();
    select(0, 0);
  }
  const currentCard = () => cards[current.cluster]?.[current.image];
  function mark(at, image) {
    currentCard()?.element.classList.remove("current");
    current = { cluster: at, image };
    currentCard()?.element.classList.add("current");
  }
  function select(at, image) {
    if (!cards[at]?.[image]) return;
    mark(at, image);
    if (!$("compare").open) currentCard().thumb.focus({ preventScroll: true });
    currentCard().element.scrollIntoView({ block: "nearest" });
  }

  // Choices.
  function toggle(node, group) {
    const choice = group.isEmpty ? true : !kept[node];
    change([["kept", node, choice]]);
  }
  const isReviewed = ({ nodes }) => nodes.every((node) => choices.reviewed.has(node));
  const review = (group) => change(group.nodes.map((node) => ["reviewed", node, isReviewed(group) ? undefined : true]));
  function setApart({ node, group: { nodes: [first] } }) {
    const key = `${first},${node}`;
    if (node === first) return;
    const isApart = choices.apart.has(key);
    change([["apart", key, isApart ? undefined : true], ["kept", node, isApart ? undefined : true]]);
  }
  const keepOnly = ({ node, group }) => change(group.nodes.map((other) => ["kept", other, other === node]));
  const keepAll = ({ group }) => change(group.nodes.map((other) => ["kept", other, true]));
  function undo() {
    const entries = done.pop();
    if (entries) put(entries);
  }

  // Decisions, out and in.
  function decisions() {
    const numbers = new Map();
    const group = new Map();
    clusters.forEach((cluster) => cluster.nodes.forEach((node) => group.set(node, cluster)));
    let nLater = 0; // rows before that are not the first of a cluster
    const result = [];
    for (const node of byRow) {
      const of = group.get(node);
      if (found.skipped[node] || (of && numbers.has(of))) nLater++;
      else if (of) numbers.set(of, rows.row[node] - nLater);
      if (!of || ($("only-reviewed").checked && !isReviewed(of))) continue;
      const [first] = of.nodes;
      const modified = rows.modified?.[node] ?? null;
      result.push({
        path: nameOf(node), id: rows.id[node], cluster_id: numbers.get(of), representative_id: rows.id[first],
        [measureName]: node === first ? (isVotes ? null : 0) : measureTo(node, first), kept: kept[node] === 1,
        reason: reasonOf(node, of), decided_by: choices.kept.has(node) ? "person" : "rule",
        reviewed: choices.reviewed.has(node), size: rows.size?.[node] ?? null,
        modified: modified === null ? null : timeText(modified),
      });
    }
    return result;
  }
  function timeText(seconds) {
    const microseconds = Math.round(seconds * 1e6);
    const whole = Math.floor(microseconds / 1e6);
    const fraction = String(microseconds - whole * 1e6).padStart(6, "0");
    return `${new Date(whole * 1000).toISOString().slice(0, 19)}.${fraction}+0000`;
  }
  function download(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
  const NAMES = ["path", "id", "cluster_id", "representative_id", measureName, "kept", "reason", "decided_by", "reviewed",
    "size", "modified"];
  const saveCsv = () => download("decisions.csv", pure.toCsv(NAMES, decisions()), "text/csv");
  const saveJson = () => download("decisions.json", `${JSON.stringify(decisions(), null, 1)}\n`, "application/json");
  function saveApart() {
    const pairs = [...choices.apart.keys()].map((key) => key.split(",").map((node) => rows.id[node]));
    const text = pure.toCsv(["left_id", "right_id"], pairs.map(([left_id, right_id]) => ({ left_id, right_id })));
    download("not_duplicates.csv", text, "text/csv");
  }
  /** Read decisions, and take over what a person decided, and what the rule decides otherwise here. */
  async function importFile(file) {
    const text = await file.text();
    let table;
    try {
      table = /^\s*\[/.test(text) ? JSON.parse(text) : pure.parseCsv(text);
    } catch (error) {
      fail(`${file.name} cannot be read: ${error.message}`);
      return;
    }
    const nodes = new Map(rows.id.map((id, node) => [id, node]));
    const entries = [];
    let nUnknown = 0;
    for (const row of table) {
      const node = nodes.get(row.id ?? row.path);
      const isTrue = (value) => String(value).toLowerCase() === "true";
      if (node === undefined) nUnknown++;
      else {
        if (row.decided_by === "person" || isTrue(row.kept) !== (kept[node] === 1)) entries.push(["kept", node, isTrue(row.kept)]);
        if (isTrue(row.reviewed)) entries.push(["reviewed", node, true]);
      }
    }
    change(entries);
    fail(`${file.name}: ${inWords(table.length - nUnknown, "row")} taken over, ${number(nUnknown)} not in this report`);
  }

  // The radius: chart, table, weakest links, and pairs just outside.
  let chart = null;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const profile = about.profile;
  const radii = isVotes ? profile.min_votes : profile.radius;
  function makeChart() {
    chart?.destroy();
    const places = radii.map((_, i) => i).sort((a, b) => radii[a] - radii[b]);
    const data = [radii, profile.n_removed, profile.n_clusters, profile.n_largest, profile.n_unrelated]
      .map((values) => places.map((i) => values[i]));
    const top = Math.max(1, ...data.slice(1, 4).flat());
    const line = (label, name, extra = {}) => ({ label, stroke: () => color(name), width: 1.5, points: { show: false }, ...extra });
    const axis = { stroke: () => color("--muted"), grid: { stroke: () => color("--line"), width: 1 },
      ticks: { show: false }, font: "11px system-ui" };
    const drawRadius = (plot) => {
      const x = Math.round(plot.valToPos(radius, "x", true));
      plot.ctx.fillStyle = color("--accent");
      plot.ctx.fillRect(x - 1, plot.bbox.top, 2, plot.bbox.height);
    };
    const options = {
      width: $("chart").clientWidth, height: 240, legend: { live: true }, cursor: { drag: { x: false, y: false }, y: false },
      scales: { x: { time: false }, y: { range: [0, top * 1.05] } },
      axes: [axis, { ...axis, size: 56, values: (_, ticks) => ticks.map(number) }],
      series: [{ label: isVotes ? "votes" : "radius" }, line("removed", "--removed"), line("clusters", "--clusters"),
        line("largest", "--largest"), line("unrelated, estimated", "--unrelated", { dash: [5, 4] })],
      hooks: { draw: [drawRadius] },
    };
    chart = new uPlot(options, data, $("chart"));
    chart.over.addEventListener("click", (event) => setRadius(Math.round(chart.posToVal(event.offsetX, "x"))));
  }
  function drawProfile() {
    const chosen = Math.max(0, radii.indexOf(radius));
    const step = Math.max(1, Math.ceil(radii.length / N_PROFILE));
    const places = [...radii.keys()].filter((i) => i % step === 0 || i === chosen);
    const cells = (i) => ["n_pairs", "n_clusters", "n_removed", "n_largest", "n_unrelated"].map((name) => {
      const value = profile[name][i];
      return make("td", {}, value === null ? "–" : value < 10 && value % 1 ? value.toFixed(1) : number(Math.round(value)));
    });
    const names = [isVotes ? "votes" : "radius", "pairs", "clusters", "removed", "largest", "unrelated, est."];
    $("profile").replaceChildren(
      make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...places.map((i) => make("tr", i === chosen ? { "aria-current": "true" } : {}, make("th", { scope: "row" },
        make("button", { type: "button", onclick: () => setRadius(radii[i]) }, `${i === chosen ? "→ " : ""}${radii[i]}`)),
      ...cells(i)))),
    );
  }
  function makeLink(pair) {
    const [left, right] = [pairA[pair], pairB[pair]];
    const open = () => openCompare(left, right);
    return make("li", {}, make("button", { type: "button", className: "thumb", onclick: open }, image(left), image(right)),
      make("div", {}, make("b", {}, inUnits(measures[pair])), make("p", { className: "path" }, pathElement(left, right)),
        make("p", { className: "path" }, pathElement(right, left))));
  }
  function drawLinks() {
    const isLink = new Uint8Array(holding);
    for (const pair of found.link) if (pair >= 0) isLink[pair] = 1;
    const [inside, outside] = [[], []];
    for (let pair = holding - 1; pair >= 0 && inside.length < N_LINKS; pair--) if (isLink[pair]) inside.push(pair);
    for (let pair = holding; pair < measures.length && outside.length < N_LINKS; pair++) {
      const [left, right] = [pairA[pair], pairB[pair]];
      if (found.root[left] !== found.root[right] && !found.skipped[left] && !found.skipped[right]) outside.push(pair);
    }
    $("inside").replaceChildren(...inside.map(makeLink));
    $("outside").replaceChildren(...outside.map(makeLink));
    $("inside-note").textContent = inside.length ? "The last pairs that join clusters. Unrelated images here: choose a stricter value."
      : "No pair at this value.";
    $("outside-note").textContent = outside.length ? "The next pairs that would join. Copies here: choose a looser value."
      : `No further pair; the report has those up to ${inUnits(about.limit)}.`;
  }
  function setRadius(value) {
    const slider = $("radius");
    radius = Math.max(Number(slider.min), Math.min(value, Number(slider.max)));
    slider.value = radius;
    $("radius-value").textContent = inUnits(radius);
    const start = performance.now();
    cluster();
    for (const group of clusters) {
      const values = group.nodes.map(joinedAt).filter((value) => value !== null);
      group.farthest = values.reduce((most, value) => (isVotes ? Math.min(most, value) : Math.max(most, value)));
      group.summary = `farthest ${inUnits(group.farthest)}`;
    }
    tally();
    filterClusters();
    drawLinks();
    drawProfile();
    drawReference();
    document.body.dataset.radiusMs = (performance.now() - start).toFixed(1);
    save();
    requestAnimationFrame(() => chart?.redraw(false, false));
  }

  // Rows in no cluster.
  function drawReference() {
    if (!rows.reference) return;
    const nodes = [...byRow].filter((node) => found.skipped[node]);
    $("reference").hidden = nodes.length === 0;
    $("reference-note").textContent = `${inWords(nodes.length, "image")}; the first ${N_LISTED} are shown.`;
    $("reference-list").replaceChildren(make("ul", { className: "cards" }, ...nodes.slice(0, N_LISTED).map((node) => {
      const { id, measure, place } = rows.reference[node];
      const source = thumbnail(place);
      return make("li", { className: "card" }, make("div", { className: "thumb" }, image(node),
        source ? make("img", { src: source, alt: id }) : null), make("p", {}, inUnits(measure)),
      make("p", { className: "path" }, nameOf(node)), make("p", { className: "path" }, `in the reference: ${id}`));
    })));
  }
  function drawRest() {
    const groups = Map.groupBy(about.failed, ({ status }) => status);
    const list = (title, texts, count) => count && make("details", {}, make("summary", {}, `${title} (${number(count)})`),
      make("ul", {}, ...texts.map((text) => make("li", {}, ...[text].flat()))));
    const parts = [...groups].map(([status, failed]) => list(`Failed: ${status}`, failed.slice(0, 10 * N_LISTED)
      .map(({ id, detail }) => [make("span", { className: "path" }, id), detail ? ` – ${detail}` : ""]), failed.length));
    parts.push(list("Flat: too little to see, matched by identical bytes only", about.flat, about.counts.flat));
    parts.push(list("Left out", about.left_out.map(({ reason, count }) => `${reason}: ${number(count)}`),
      about.left_out.reduce((sum, { count }) => sum + count, 0)));
    $("rest").replaceChildren(...parts.filter(Boolean));
  }

  // Two images side by side.
  let compared = null;
  let blinking = 0;
  function openCompare(left, right) {
    const card = currentCard();
    if (left === undefined && !card) return;
    compared = left === undefined ? null : { left, right };
    drawCompare();
    $("compare").showModal();
  }
  function drawCompare() {
    const card = currentCard();
    const left = compared ? compared.left : card.group.nodes[0];
    const right = compared ? compared.right : card.node === left ? card.group.nodes[1] : card.node;
    const pair = findPair(left, right);
    const measure = isVotes ? (pair < 0 ? null : measures[pair]) : bitsBetween(left, right);
    $("compare-note").textContent = [measure === null ? "no pair of their own" : inUnits(measure),
      sameFile[left] === sameFile[right] ? "identical file" : "",
      compared ? "" : kept[right] ? "the right one is kept" : "the right one would be removed"].filter(Boolean).join(" · ");
    const side = (node, other) => {
      const frame = make("div", { className: "frame" }, image(node));
      frame.style.setProperty("--ratio", (rows.width?.[node] ?? 1) / (rows.height?.[node] ?? 1));
      const label = make("p", { className: "path" }, pathElement(node, other));
      return { frame, element: make("figure", {}, frame, make("figcaption", {}, label, make("p", {}, describe(node)))) };
    };
    const sides = [side(left, right), side(right, left)];
    if (isVotes && pair >= 0 && listed.scale) addPlacement(pair, pairA[pair] === left ? sides[1].frame : sides[0].frame);
    $("stage").replaceChildren(...sides.map(({ element }) => element));
    $("stage").classList.toggle("blink", blinking !== 0);
    const width = Math.sqrt(about.hash_bits ?? 0.5);
    if (Number.isInteger(width)) $("stage").append(drawDifference(left, right, width));
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const target = compared ? null : cards[current.cluster].find(({ node }) => node === right);
    $("compare-actions").replaceChildren(button(blinking ? "Stop (b)" : "Blink (b)", blink),
      ...(target ? [button(kept[right] ? "Remove (space)" : "Keep (space)", () => toggle(right, target.group)),
        button("No duplicate (d)", () => setApart(target))] : []),
      button("Close", () => $("compare").close()));
  }
  /** Draw where the left image of a pair lies in the right one. */
  function addPlacement(pair, frame) {
    const [a, b] = [pairA[pair], pairB[pair]];
    const swaps = ["rotated_90", "rotated_270", "transposed", "transversed"].includes(listed.turn[pair]);
    const sides = swaps ? [rows.height[a], rows.width[a]] : [rows.width[a], rows.height[a]];
    const unit = listed.scale[pair] * Math.max(rows.width[b], rows.height[b]) / Math.max(...sides);
    const box = make("div", { className: "placement" });
    const percent = { left: listed.shift_x[pair], top: listed.shift_y[pair],
      width: unit * sides[0] / rows.width[b], height: unit * sides[1] / rows.height[b] };
    for (const [name, value] of Object.entries(percent)) box.style[name] = `${100 * value}%`;
    frame.append(box);
  }
  function drawDifference(left, right, width) {
    const lowFirst = !about.hash_type.startsWith("imagehash");
    const bitOf = (bytes, i) => (bytes[i >> 3] >> (lowFirst ? i & 7 : 7 - (i & 7))) & 1;
    const [a, b] = [hashBits(left), hashBits(right)];
    const canvas = make("canvas", { width: 8 * width, height: 8 * width, role: "img",
      "aria-label": `${bitsBetween(left, right)} of ${about.hash_bits} bits differ` });
    const context = canvas.getContext("2d");
    for (let i = 0; i < about.hash_bits; i++) {
      const [x, y] = [8 * (i % width), 8 * Math.floor(i / width)];
      context.fillStyle = bitOf(a, i) ? color("--bit-1") : color("--bit-0");
      context.fillRect(x, y, 8, 8);
      if (bitOf(a, i) === bitOf(b, i)) continue;
      context.fillStyle = color("--accent");
      context.fillRect(x + 1, y + 1, 6, 6);
    }
    return make("figure", { className: "bits" }, canvas, make("figcaption", {}, "Bits of the left hash; squares mark those that differ"));
  }
  function blink() {
    if (blinking) clearInterval(blinking);
    blinking = blinking ? 0 : setInterval(() => $("stage").classList.toggle("swapped"), 600);
    drawCompare();
  }

  // Keys.
  const inCluster = (action) => () => currentCard() && action(currentCard());
  const keys = [
    ["j", "next cluster", () => select(current.cluster + 1, 0)], ["k", "previous cluster", () => select(current.cluster - 1, 0)],
    ["ArrowRight", "next image", () => select(current.cluster, current.image + 1), "→"],
    ["ArrowLeft", "previous image", () => select(current.cluster, current.image - 1), "←"],
    [" ", "keep or remove the image", inCluster(({ node, group }) => toggle(node, group)), "space"],
    ["K", "keep only this image", inCluster(keepOnly)], ["A", "keep all images of the cluster", inCluster(keepAll)],
    ["d", "no duplicate of the kept image", inCluster(setApart)],
    ["Enter", "compare with the kept image", () => !$("compare").open && openCompare()],
    ["b", "blink, while comparing", () => $("compare").open && blink()],
    ["r", "reviewed", inCluster(({ group }) => review(group))], ["u", "undo", undo],
    ["n", "next page", () => turnPage(1)], ["p", "previous page", () => turnPage(-1)],
    ["/", "filter by path", () => $("text").focus()], ["?", "keys", () => $("help").showModal()],
    ["Escape", "close", null],
  ];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const isThumb = event.target.closest(".thumb");
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    if (["Enter", " "].includes(event.key) && !isThumb && event.target.closest("button, a, input, summary, label")) return;
    const action = keys.find(([key]) => key === event.key)?.[2];
    if (!action) return;
    event.preventDefault();
    action();
    if ($("compare").open && event.key.startsWith("Arrow")) drawCompare();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.closest(".thumb")) event.preventDefault();
  });

  // Once, at the start.
  restore();
  const { counts } = about;
  const facts = [about.hash_type, about.decode, about.linkage, `keep ${about.keep}`, about.program, about.created];
  $("facts").textContent = facts.filter(Boolean).join(" · ");
  $("command").textContent = about.command ?? "";
  $("command").hidden = !about.command;
  $("suggestion").textContent = about.suggestion ?? "";
  $("radius-label").textContent = isVotes ? "Votes, at least" : "Radius";
  $("radius").min = isVotes ? about.limit : 0;
  $("radius").max = isVotes ? Math.max(about.chosen, ...radii) : about.limit;
  for (const folder of [...new Set(byRow.slice(0, 10_000).map ? [...byRow].slice(0, 10_000).map(folderOf) : [])].slice(0, 200)) {
    $("folders").append(make("option", { value: folder }));
  }
  for (const [, text, , label] of keys.map(([key, text, action, label]) => [key, text, action, label ?? key])) {
    $("keys").append(make("div", {}, make("dt", {}, make("kbd", {}, label)), make("dd", {}, text)));
  }
  const on = (id, event, action) => $(id).addEventListener(event, action);
  let isWaiting = false;
  on("radius", "input", () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => { isWaiting = false; setRadius(Number($("radius").value)); });
  });
  for (const id of ["sort", "folder", "from", "to", "across", "mixed", "undecided", "text"]) on(id, "input", filterClusters);
  on("filters", "submit", (event) => event.preventDefault());
  on("save-csv", "click", saveCsv);
  on("save-json", "click", saveJson);
  on("save-apart", "click", saveApart);
  on("import", "change", (event) => event.target.files[0] && importFile(event.target.files[0]));
  on("undo", "click", undo);
  on("show-keys", "click", () => $("help").showModal());
  on("previous", "click", () => turnPage(-1));
  on("next", "click", () => turnPage(1));
  on("compare", "close", () => { clearInterval(blinking); blinking = 0; select(current.cluster, current.image); });
  drawRest();
  setRadius(radius);
  makeChart();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeChart);
  addEventListener("resize", () => chart.setSize({ width: $("chart").clientWidth, height: 240 }));
})();
