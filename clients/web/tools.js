// Functions that the page lets the model call and runs itself: a timer, and the clock. clients/tools.py has the same.
const UNITS = { hours: 3600, minutes: 60, seconds: 1 };
const DONE = '{"ok":true}';

function declared(name, description, properties) {
  const parameters = { type: "object", properties, additionalProperties: false };
  return { type: "function", name, description, parameters };
}

const duration = Object.fromEntries(Object.keys(UNITS).map((unit) => [unit, { type: "integer" }]));
export const TOOLS = [
  declared("set_timer", "Start a timer.", duration),
  declared("get_time", "What time it is now.", {}),
];

// What the model is given back; `onTimer` is called when a timer is over.
export function run(name, args, onTimer) {
  switch (name) {
    case "set_timer": {
      const seconds = Object.entries(UNITS).reduce((sum, [unit, each]) => sum + each * (args[unit] ?? 0), 0);
      setTimeout(onTimer, 1000 * seconds);
      return DONE;
    }
    case "get_time": {
      const now = new Date();
      const two = (number) => String(number).padStart(2, "0");
      return JSON.stringify({ time: `${two(now.getHours())}:${two(now.getMinutes())}` });
    }
    default:
      return JSON.stringify({ error: `there is no ${name}` });
  }
}
