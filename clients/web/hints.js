// What to ask, by the name of the model.
const QUESTIONS = {
  nano: [
    "What is the capital of France?",
    "What is four times three?",
    "Which month comes before November?",
    "What language do they speak in Italy?",
    "Tell me a story.",
  ],
};
// The same, of a model that calls functions.
const COMMANDS = { nano: ["Set a timer for one minute.", "What time is it?"] };

export function hintsOf(model, mayCall) {
  return [...(QUESTIONS[model] ?? []), ...((mayCall && COMMANDS[model]) || [])];
}
