// What the browser and Node run alike: scenario({ connect, url, transport, control }) returns
// what was seen. control(path) has the server do something and resolves when it is done.
export async function scenario({ connect, url, transport, control }) {
  const log = [];
  const waiting = [];
  const say = (line) => {
    log.push(line);
    for (const w of [...waiting]) w();
  };
  const until = (line, count = 1) => new Promise((resolve, reject) => {
    const check = () => {
      if (log.filter((l) => l === line).length < count) return;
      clearTimeout(timer);
      waiting.splice(waiting.indexOf(check), 1);
      resolve(undefined);
    };
    const timer = setTimeout(() => reject(new Error(`no ${count}. "${line}" in ${JSON.stringify(log)}`)), 15000);
    waiting.push(check);
    check();
  });
  const listener = {
    joined: (group) => say(`joined ${group}`),
    event: (event, group) => say(`${group} ${event.type} ${event.data.percent}`),
    reset: (group) => say(`reset ${group}`),
    error: (error) => say(`error ${error.group} ${error.code}`),
  };
  let tokens = 0;
  const via = new Set(); // how it was connected, each time
  const live = connect(url, {
    transport,
    minDelay: 10,
    token: () => `ada ${++tokens}`,
    onState: (state, by) => { if (state === "open") via.add(by); },
    onError: (error) => say(`failed ${error.code}`),
  });
  const leave = live.join("document_1", listener);
  live.join("document_secret", listener);
  await until("joined document_1");
  await until("error document_secret forbidden");
  await control("publish?document=1&percent=10");
  await until("document_1 document.progress 10");

  await control("cut"); // the connection; what is published meanwhile is not lost
  await control("publish?document=1&percent=20");
  await control("open"); // and only now it can come back
  await until("document_1 document.progress 20");
  await control("publish?document=1&percent=30");
  await until("document_1 document.progress 30");

  await control("restart"); // another node, which has not seen any of it
  await until("reset document_1");

  live.join("document_2", listener);
  await until("joined document_2");
  leave();
  await control("publish?document=1&percent=40");
  await control("publish?document=2&percent=50");
  await until("document_2 document.progress 50");
  live.close();

  const stranger = connect(url, { transport, token: () => "eve", onError: (error) => say(`failed ${error.code}`) });
  stranger.join("document_1", listener);
  await until("failed unauthorized");

  const long = connect(url, { transport, token: () => "ada", minDelay: 10, onError: (error) => say(`long refused: ${error.code === "bad_message"}`) });
  long.join("document_1", listener);
  // It does not come again for ever. A stream is told which group is bad, a WebSocket that its message is.
  long.join("x".repeat(10000), { error: (error) => say(`long refused: ${error.code === "bad_group"}`) });
  await until("long refused: true");
  long.close();
  const events = log.filter((line) => line.includes("progress"));
  return { via: [...via].join(), tokens, events, state: stranger.state };
}
