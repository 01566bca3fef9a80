// Prints what the official SDK makes of the gateway's answers, as JSON, for the test that started this.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_KEY, maxRetries: 0 });
const ask = { model: "model-a", max_tokens: 64, messages: [{ role: "user", content: "What is the weather?" }] };
const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];

const message = await client.messages.create({ ...ask, tools });
const stream = client.messages.stream({ ...ask, tools });
const texts = [];
stream.on("text", (text) => texts.push(text));
const streamed = await stream.finalMessage();
const counted = await client.messages.countTokens({ model: ask.model, messages: ask.messages });
let error;
try {
  await client.messages.create({ ...ask, model: "never-heard-of" });
} catch (caught) {
  error = { isNotFound: caught instanceof Anthropic.NotFoundError, status: caught.status, body: caught.error };
}
console.log(
  JSON.stringify({
    content: message.content,
    streamed: streamed.content,
    text: texts.join(""),
    stop: [message.stop_reason, streamed.stop_reason],
    counted: counted.input_tokens,
    error,
  }),
);
