// One conversation of @openai/agents-realtime, unchanged but for its url, over a WebSocket.
//
//     node talk.mjs MODULES URL SPEECH TURNS ANSWERS
//
// speaks SPEECH (24 kHz, 16 bit, mono) in real time, then silence. Two seconds into an answer it speaks
// again, until it has spoken TURNS times. When ANSWERS answers are over, the last of them whole and in words,
// and the user's words are known (if the server says that it writes them down), it writes what it has seen
// as JSON. It has a tool that sets a timer.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, url, speechFile, turns, answers] = process.argv.slice(2);
const library = join(modules, "@openai/agents-realtime/dist");
const load = (file) => import(pathToFileURL(join(library, file)));
const { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } = await load("index.mjs");
const { parseRealtimeEvent } = await load("openaiRealtimeEvents.mjs");

const PIECE = 960; // bytes of 20 ms
const speech = readFileSync(speechFile);
const THINKING = 2000; // ms of an answer that are heard before it is spoken over: it is a turn of its own
const silence = Buffer.alloc(PIECE);
const seen = { interrupted: 0, errors: [], calls: [], demoted: [], statuses: [], truncated: 0 };
const sound = []; // what was heard of the answers
const sent = {}; // by item, the user's words as they came
let writesDown = false;
let spoken = 1;
let speakAt = null; // when the answer is spoken over
let position = 0;

const transport = new OpenAIRealtimeWebSocket({ url, useInsecureApiKey: true });
const setTimer = tool({
    name: "set_timer",
    description: "Start a timer.",
    parameters: {
        type: "object",
        properties: {
            hours: { type: "integer" },
            minutes: { type: "integer" },
            seconds: { type: "integer" },
        },
        required: [],
        additionalProperties: false,
    },
    strict: false,
    execute: (time) => {
        seen.calls.push(time);
        return "ok";
    },
});
const agent = new RealtimeAgent({ name: "aqaa", instructions: "", tools: [setTimer] });
const session = new RealtimeSession(agent, { transport, model: "scripted" });
session.on("error", (error) => seen.errors.push(JSON.stringify(error)));
session.on("audio", (event) => {
    sound.push(Buffer.from(event.data));
    if (speakAt === null && spoken < Number(turns)) {
        speakAt = performance.now() + THINKING;
    }
});
session.on("audio_interrupted", () => {
    seen.interrupted += 1;
});
session.on("transport_event", (event) => {
    if (parseRealtimeEvent({ data: JSON.stringify(event) }).isGeneric) {
        seen.demoted.push(event.type);
    }
    if (event.type === "response.done") {
        seen.statuses.push(event.response.status);
    }
    if (event.type === "session.updated") {
        writesDown = event.session.audio.input.transcription !== null;
    }
    if (event.type === "conversation.item.input_audio_transcription.completed") {
        sent[event.item_id] = event.transcript;
    }
    if (event.type === "conversation.item.truncated") {
        seen.truncated += 1;
    }
});

function isOver() {
    const users = session.history.filter((item) => item.role === "user");
    const whole = seen.statuses.at(-1) === "completed" && seen.statuses.length >= Number(answers);
    const inWords = session.history.at(-1)?.role === "assistant"; // no call
    const known = !writesDown || users.every((item) => item.content[0].transcript);
    return whole && inWords && users.length > 0 && known;
}

await session.connect({ apiKey: "unused" });
const begun = performance.now();
let pieces = 0;
const microphone = setInterval(() => {
    if (speakAt !== null && performance.now() > speakAt) {
        speakAt = null;
        spoken += 1;
        position = 0;
    }
    while (performance.now() - begun > 20 * (pieces + 1)) {
        pieces += 1;
        const piece = position < speech.length ? speech.subarray(position, position + PIECE) : silence;
        position += PIECE;
        session.sendAudio(new Uint8Array(piece).buffer);
    }
    if (isOver()) {
        clearInterval(microphone);
        session.close();
        const heard = Buffer.concat(sound).toString("base64");
        console.log(JSON.stringify({ ...seen, sound: heard, sent, history: session.history }));
    }
}, 10);
