@echo off
rem Starts MOVA Studio. What follows goes to launch.py: start.bat doctor, start.bat update FILE, ...
setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul
set "PYTHON="
if exist "%~dp0.uv\path" for /f "usebackq delims=" %%p in ("%~dp0.uv\path") do set "PYTHON=%%p"
if defined PYTHON if exist "%PYTHON%" goto :start
call "%~dp0install.bat" --no-shortcuts
if errorlevel 1 exit /b 1
for /f "usebackq delims=" %%p in ("%~dp0.uv\path") do set "PYTHON=%%p"
:start
"%PYTHON%" "%~dp0launch.py" %*
set "CODE=%ERRORLEVEL%"
if not "%CODE%"=="0" if "%~1"=="" pause
exit /b %CODE%
