<?php
// Does what the name of the script says.

$what = basename($_SERVER['SCRIPT_NAME']);
// The master writes down what a worker says here, and which one it is.
fwrite(fopen('php://stderr', 'w'), "has $what\n");

function deeper()
{
    // Each level takes a part of the stack of the process, not only of PHP's.
    array_map('deeper', [1]);
}

switch ($what) {
    case 'held':
        while (!file_exists('{dir}/open')) {
            usleep(5000);
            clearstatcache();
        }
        break;
    case 'half':
        header('Content-Length: 100');
        echo 'half';
        flush();
        // Falls through.
    case 'stuck':
        while (true) {
            usleep(100000);
        }
    case 'memory':
        str_repeat('x', 32 << 20);
        break;
    case 'stack':
        deeper();
        break;
}
echo 'good';
